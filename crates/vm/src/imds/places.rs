//! What follows from the name of a region: partition, domain, ids of zones, names of hosts.

use amiforge_ami::ec2::Region;

/// The partition: `aws`, or that of China or the US government.
pub(super) fn partition(region: &Region) -> &'static str {
    match region.as_str().split('-').next() {
        Some("cn") => "aws-cn",
        Some("us") if region.as_str().starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// The domain of its services.
pub(super) fn domain(region: &Region) -> &'static str {
    match partition(region) {
        "aws-cn" => "amazonaws.com.cn",
        _ => "amazonaws.com",
    }
}

/// The id of a zone: `use1-az1` of `us-east-1a`. AWS deals the letters out to each account as it likes; here they are in
/// order. `None` for a zone that is not of the region.
pub(super) fn zone_id(region: &Region, zone: &str) -> Option<String> {
    let letter = zone.strip_prefix(region.as_str())?;
    let [letter @ b'a'..=b'z'] = letter.as_bytes() else {
        return None;
    };
    let mut parts: Vec<&str> = region.as_str().split('-').collect();
    let number = parts.pop()?;
    let mut short = String::new();
    for (n, part) in parts.iter().enumerate() {
        if n == 0 {
            short.push_str(part);
            continue;
        }
        let mut rest = *part;
        while !rest.is_empty() {
            let word = ["north", "south", "east", "west", "central", "gov"]
                .iter()
                .find(|w| rest.starts_with(**w));
            match word {
                Some(word) => {
                    short.push_str(if *word == "gov" { "g" } else { &word[..1] });
                    rest = &rest[word.len()..];
                }
                None => {
                    short.push_str(&rest[..rest.len().min(1)]);
                    rest = "";
                }
            }
        }
    }
    Some(format!("{short}{number}-az{}", letter - b'a' + 1))
}

/// The private host name that an address gives, `ip-172-31-16-10.ec2.internal` in `us-east-1`.
pub(super) fn private_host(region: &Region, address: &str) -> String {
    let host = address.replace('.', "-");
    match region.as_str() {
        "us-east-1" => format!("ip-{host}.ec2.internal"),
        region => format!("ip-{host}.{region}.compute.internal"),
    }
}
