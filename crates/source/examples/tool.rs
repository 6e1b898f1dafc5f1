use amiforge_source::*;
use amiforge_tree::*;
use amiforge_types::*;
use std::os::unix::fs::*;
use std::path::*;
use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let suite = &a[1];
    let mode = &a[2];
    let ev = |e: SourceEvent| match e {
        SourceEvent::FetchProgress { .. } | SourceEvent::Unpacked { .. } => {}
        e => eprintln!("{e:?}"),
    };
    let now = Timestamp::from_secs(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs() as i64,
    );
    let ctx = Context {
        host_root: Path::new("/"),
        cache: Path::new("/work/t/apt-cache"),
        now,
        offline: false,
        jobs: 2,
        proxy: None,
        events: &ev,
    };
    let mut rq = DebianRequest::new(suite, Arch::X86_64);
    if mode == "sim" {
        rq.packages = Some(a[3..].to_vec());
        if a[3..].first().map(|s| s.as_str()) == Some("default") {
            rq.packages = None;
        }
    }
    let t = Instant::now();
    let r = match resolve(&rq, &ctx) {
        Ok(r) => r,
        Err(e) => {
            let mut s: Option<&dyn std::error::Error> = Some(&e);
            while let Some(x) = s {
                eprintln!("error: {x}");
                s = x.source();
            }
            std::process::exit(1)
        }
    };
    eprintln!(
        "resolve {:?} {} packages {} MB",
        t.elapsed(),
        r.packages.len(),
        r.download_bytes() >> 20
    );
    if mode == "sim" {
        let mut v: Vec<_> = r
            .packages
            .iter()
            .map(|p| format!("{}={}", p.name, p.version))
            .collect();
        v.sort();
        for x in v {
            println!("{x}")
        }
        return;
    }
    let t = Instant::now();
    let f = fetch(&r, &ctx).unwrap();
    eprintln!("fetch {:?} {}", t.elapsed(), f.downloaded);
    let t = Instant::now();
    let spool = std::fs::File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open("/dev/shm/apt-spool")
        .unwrap();
    let mut blobs = BlobTable::new();
    let d = unpack(&r, &f, spool, &mut blobs, &ctx).unwrap_or_else(|e| {
        let mut s: Option<&dyn std::error::Error> = Some(&e);
        while let Some(x) = s {
            eprintln!("error: {x}");
            s = x.source();
        }
        std::process::exit(1)
    });
    eprintln!("unpack {:?} {} entries", t.elapsed(), d.entries.len());
    let st = std::fs::read_to_string("/proc/self/status").unwrap();
    eprintln!("{}", st.lines().find(|l| l.starts_with("VmHWM")).unwrap());
    let dir = PathBuf::from(&a[3]);
    std::fs::create_dir_all(&dir).unwrap();
    let p = |b: &[u8]| dir.join(std::str::from_utf8(b).unwrap());
    for (path, e) in &d.entries {
        let t = p(path);
        match e {
            LayerEntry::Put(i) => {
                match &i.kind {
                    Kind::Dir(_) => {
                        let _ = std::fs::create_dir(&t);
                    }
                    Kind::Symlink(x) => {
                        symlink(std::str::from_utf8(x).unwrap(), &t).unwrap();
                        lchown(&t, Some(i.stat.uid), Some(i.stat.gid)).unwrap();
                        continue;
                    }
                    Kind::File(c) => {
                        let f = std::fs::File::create(&t).unwrap();
                        for x in &c.extents {
                            match &x.source {
                                DataSource::Bytes(b) => f.write_all_at(b, x.offset).unwrap(),
                                DataSource::Blob { id, offset } => {
                                    let mut buf = vec![0; x.len as usize];
                                    blobs
                                        .get(*id)
                                        .unwrap()
                                        .read_exact_at(&mut buf, *offset)
                                        .unwrap();
                                    f.write_all_at(&buf, x.offset).unwrap();
                                }
                            }
                        }
                        let tm = std::time::UNIX_EPOCH
                            + std::time::Duration::from_secs(i.stat.mtime.secs as u64);
                        f.set_modified(tm).unwrap();
                    }
                    k => {
                        eprintln!("skip {k:?}");
                        continue;
                    }
                }
                chown(&t, Some(i.stat.uid), Some(i.stat.gid)).unwrap();
                std::fs::set_permissions(&t, std::fs::Permissions::from_mode(i.stat.mode as u32))
                    .unwrap();
            }
            LayerEntry::Link(x) => std::fs::hard_link(p(x), &t).unwrap(),
            _ => panic!(),
        }
    }
    std::fs::write(format!("{}.sh", a[3]), configure_script(&r, r.newest.secs)).unwrap();
    for (n, s) in SHIMS {
        println!("{n} {}", s.len());
    }
}
