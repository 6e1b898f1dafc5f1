use amiforge_testkit::{run, tool};

use super::{check_qcow2, create};

#[test]
fn qemu_img_finds_nothing_wrong_with_an_overlay() {
    let dir = tempfile::tempdir().unwrap();
    for (i, bytes) in [512, 1 << 20, (1 << 30) + 512, 64 << 40]
        .into_iter()
        .enumerate()
    {
        let path = dir.path().join(format!("{i}.qcow2"));
        create(&path, bytes).unwrap();
        run(tool("qemu-img").args(["check", "-f", "qcow2"]).arg(&path));
        let info = run(tool("qemu-img")
            .args(["info", "--output=json", "-f", "qcow2"])
            .arg(&path))
        .json();
        assert_eq!(info["virtual-size"], bytes);
        assert!(info.get("backing-filename").is_none());
        check_qcow2(&path).unwrap();
        assert!(
            create(&path, bytes).is_err(),
            "an overlay never replaces a file"
        );
    }
}

#[test]
fn a_qcow2_that_leads_to_other_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("secret"), [0; 512]).unwrap();
    run(tool("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(path("secret"))
        .arg(path("b")));
    let error = check_qcow2(&path("b")).unwrap_err();
    assert!(error.to_string().contains("backing file"), "{error}");
    let data = format!("data_file={}", path("data").display());
    run(tool("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-o", &data])
        .arg(path("d"))
        .arg("1M"));
    let error = check_qcow2(&path("d")).unwrap_err();
    assert!(error.to_string().contains("another file"), "{error}");
    assert!(check_qcow2(&path("secret")).is_err());
}
