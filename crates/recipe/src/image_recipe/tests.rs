use super::*;

fn recipe(extra: &str) -> ImageRecipe {
    let text = format!("name: demo\nsemanticVersion: 1.0.0\nparentImage: debian:bookworm\n{extra}");
    let (recipe, problems) = parse_recipe(&text);
    recipe.unwrap_or_else(|| panic!("{problems:?}"))
}

#[test]
fn defaults_without_our_key() {
    let recipe = recipe("");
    assert_eq!(recipe.amiforge, AmiforgeSettings::default());
    assert_eq!(
        recipe.amiforge.formats,
        [OutputFormat::Raw, OutputFormat::Qcow2]
    );
    assert_eq!(recipe.amiforge.boot_mode, BootMode::UefiPreferred);
    assert_eq!(recipe.root_device_name(), "/dev/xvda");
    assert_eq!(
        recipe.parent,
        ParentImage::Debian {
            suite: "bookworm".into()
        }
    );
}

#[test]
fn the_root_is_found_wherever_it_stands() {
    let with = |devices: &[&str]| {
        let entries: String = devices
            .iter()
            .map(|d| format!("  - {{deviceName: {d}, ebs: {{volumeSize: 2, volumeType: gp3}}}}\n"))
            .collect();
        recipe(&format!("blockDeviceMappings:\n{entries}"))
            .root_device_name()
            .to_owned()
    };
    assert_eq!(with(&["/dev/sdb", "/dev/sda1"]), "/dev/sda1");
    assert_eq!(with(&["/dev/xvdb", "/dev/xvda"]), "/dev/xvda");
    assert_eq!(with(&["/dev/sdf", "/dev/sdg"]), "/dev/sdf");
}

#[test]
fn both_spellings_give_the_same_recipe() {
    let camel = "name: demo\nsemanticVersion: 1.0.x\nparentImage: debian:trixie\nblockDeviceMappings: [{deviceName: /dev/xvda, ebs: {volumeSize: 2, volumeType: gp3, deleteOnTermination: true}}]\n";
    let pascal = "Name: demo\nVersion: 1.0.x\nParentImage: debian:trixie\nBlockDeviceMappings: [{DeviceName: /dev/xvda, Ebs: {VolumeSize: 2, VolumeType: gp3, DeleteOnTermination: true}}]\n";
    let (camel, pascal) = (
        parse_recipe(camel).0.unwrap(),
        parse_recipe(pascal).0.unwrap(),
    );
    assert_eq!(
        camel.block_device_mappings[0].ebs,
        pascal.block_device_mappings[0].ebs
    );
    assert_eq!(
        (camel.name, camel.version, camel.parent),
        (pascal.name, pascal.version, pascal.parent)
    );
}

#[test]
fn components_are_paths_or_names() {
    let recipe = recipe(
        "components:\n  - componentArn: ./a.yaml\n  - componentArn: /abs/b\n  - componentArn: c.YML\n  - componentArn: update-linux\n  - componentArn: arn:aws-cn:imagebuilder:cn-north-1:aws:component/go-stable-linux/1.x.x\n",
    );
    let shown: Vec<String> = recipe
        .components
        .iter()
        .map(|c| c.source.to_string())
        .collect();
    assert_eq!(
        shown,
        [
            "./a.yaml",
            "/abs/b",
            "c.YML",
            "update-linux/x.x.x",
            "arn:aws-cn:imagebuilder:cn-north-1:aws:component/go-stable-linux/1.x.x"
        ]
    );
    let managed: Vec<_> = recipe
        .components
        .iter()
        .filter_map(|c| c.source.managed())
        .map(|(name, version)| format!("{name}/{version}"))
        .collect();
    assert_eq!(managed, ["go-stable-linux/1.x.x"]);
}

#[test]
fn limits_of_steps_are_optional_one_by_one() {
    let limits = |text: &str| {
        recipe(&format!("amiforge: {{limits: {{{text}}}}}\n"))
            .amiforge
            .limits
    };
    assert_eq!(limits(""), StepLimits::default());
    let some = limits("processes: 64, fileSizeGib: 2");
    assert_eq!(
        (some.processes, some.open_files, some.file_size_gib),
        (Some(64), None, Some(2))
    );
    assert_eq!(limits("openFiles: 65536").open_files, Some(65_536));
}
