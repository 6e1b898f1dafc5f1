use super::*;
use amiforge_types::Timestamp;

fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn ask(
    dir: &tempfile::TempDir,
    suite: &str,
    settings: &AptSettings,
) -> Result<Vec<Archive>, SourceError> {
    let ctx = Context {
        host_root: dir.path(),
        cache: dir.path(),
        now: Timestamp::from_secs(0),
        offline: true,
        jobs: 1,
        proxies: &crate::Proxies::default(),
        events: &|_| {},
    };
    archives(suite, "amd64", settings, &AptConfig::default(), &ctx)
}

fn short(archives: &[Archive]) -> Vec<String> {
    archives
        .iter()
        .map(|a| format!("{} {} {}", a.uri, a.suite, a.components.join(",")))
        .collect()
}

#[test]
fn one_line_entries_with_options_are_mapped_to_the_suite() {
    let dir = host(&[(
        "etc/apt/sources.list",
        "# head\ndeb [arch=amd64 signed-by=/k/one.gpg] http://a.test/debian/ bookworm main contrib # tail\n\
         deb-src http://a.test/debian bookworm main\n\
         deb http://a.test/debian bookworm-updates main\n\
         deb [ arch=i386,armhf ] http://b.test/debian bookworm-backports main\n\
         deb http://s.test/debian-security bookworm-security main\n\
         deb http://third.test/x cloud-sdk-bookworm main\ndeb http://third.test/y bookworm stable\n\
         deb cdrom:[Debian]/ bookworm main\n",
    )]);
    // `cdrom:[Debian]/` has the bracket inside the address, not as options.
    let got = ask(&dir, "trixie", &AptSettings::default()).unwrap();
    assert_eq!(
        short(&got),
        [
            "http://a.test/debian trixie main",
            "http://a.test/debian trixie-updates main",
            "http://s.test/debian-security trixie-security main"
        ]
    );
    assert_eq!(
        got[0].signed_by,
        SignedBy::Files(vec![dir.path().join("k/one.gpg")], Vec::new())
    );
    let sid = ask(&dir, "sid", &AptSettings::default()).unwrap();
    assert_eq!(short(&sid), ["http://a.test/debian sid main"]);
}

#[test]
fn deb822_entries_with_inline_key_and_disabled_ones() {
    let dir = host(&[
        (
            "etc/apt/sources.list.d/debian.sources",
            "Types: deb deb-src\n# c\nURIs: https://m.test/debian\nSuites: stable\n stable-updates\nComponents: main\n\
             Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n\n\
             Types: deb\nURIs: http://off.test/d\nSuites: stable\nComponents: main\nEnabled: no\n",
        ),
        ("etc/apt/sources.list.d/x.sources.disabled", "nonsense"),
    ]);
    let got = ask(&dir, "bookworm", &AptSettings::default()).unwrap();
    assert_eq!(
        short(&got),
        [
            "https://m.test/debian bookworm main",
            "https://m.test/debian bookworm-updates main"
        ]
    );
    assert_eq!(
        got[0].signed_by,
        SignedBy::Inline(
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----"
                .to_owned()
        )
    );
}

#[test]
fn the_recipe_takes_the_place_of_the_host() {
    let dir = host(&[]);
    let none = ask(&dir, "bookworm", &AptSettings::default());
    assert!(
        matches!(none, Err(SourceError::NoArchive { .. })),
        "{none:?}"
    );
    let settings = AptSettings {
        mirror: Some("file:/srv/mirror/".to_owned()),
        components: Some(vec!["main".to_owned(), "contrib".to_owned()]),
        keyring: Some(PathBuf::from("/k")),
        ..AptSettings::default()
    };
    let got = ask(&dir, "bookworm", &settings).unwrap();
    assert_eq!(short(&got), ["file:///srv/mirror bookworm main,contrib"]);
    for bad in ["../x", "", "a b", "a/../b"] {
        assert!(
            matches!(ask(&dir, bad, &settings), Err(SourceError::BadSuite(_))),
            "{bad}"
        );
    }
    let secret = AptSettings {
        mirror: Some("http://u:p@h.test/d".to_owned()),
        ..AptSettings::default()
    };
    let error = ask(&dir, "bookworm", &secret).unwrap_err().to_string();
    assert!(!error.contains("u:p"), "{error}");
}

#[test]
fn errors_name_file_and_line() {
    let dir = host(&[(
        "etc/apt/sources.list",
        "deb http://a bookworm main\n\nrpm x\n",
    )]);
    match ask(&dir, "bookworm", &AptSettings::default()) {
        Err(SourceError::Config { path, line, .. }) => {
            assert!(path.ends_with("etc/apt/sources.list"));
            assert_eq!(line, 3);
        }
        other => panic!("{other:?}"),
    }
}
