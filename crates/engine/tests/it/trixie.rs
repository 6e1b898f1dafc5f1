//! The newer suite: built, and booted under both firmwares with cloud-init and the agent.

use amiforge_testkit::{Env, Running};
use serde_json::Value;

use crate::base::LIMIT;

#[test]
fn image_of_trixie_boots_under_both_firmwares() {
    let env = Env::new();
    let recipe = "name: debian-trixie\nsemanticVersion: 1.0.0\nparentImage: debian:trixie\namiforge:\n  \
        bootMode: uefi-preferred\n  formats: [raw]\n";
    env.write("recipe/recipe.yaml", recipe);
    let mut command = env.amiforge();
    command
        .arg("build")
        .arg(env.path("recipe"))
        .arg("--out")
        .arg(env.path("out"));
    Running::spawn(&mut command).wait(LIMIT).expect_code(0);
    let report: Value =
        serde_json::from_slice(&fs_err::read(env.path("out/boot-report.json")).unwrap()).unwrap();
    for firmware in ["bios", "uefi"] {
        let run = &report["runs"][firmware];
        assert_eq!(run["passed"], true, "{run}");
        let guest = &run["tests"]["guest"];
        assert_eq!(guest["efi"], firmware == "uefi", "{run}");
        assert!(guest["kernel"].as_str().unwrap().contains("deb13"), "{run}");
        assert_eq!(guest["failedUnits"], serde_json::json!([]), "{run}");
    }
}
