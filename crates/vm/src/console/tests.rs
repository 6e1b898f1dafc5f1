use super::*;

fn scan(pieces: &[&[u8]]) -> (Vec<Milestone>, Option<GuestFailure>, Vec<String>) {
    let mut scanner = ConsoleScanner::new();
    let mut milestones = Vec::new();
    let mut failure = None;
    for event in pieces.iter().flat_map(|p| scanner.feed(p)) {
        match event {
            ConsoleEvent::Milestone(m) => milestones.push(m),
            ConsoleEvent::Failure(f) => failure = Some(f),
        }
    }
    (milestones, failure, scanner.tail())
}

/// Whole, and byte by byte: a serial line comes in any pieces.
fn both(text: &[u8]) -> (Vec<Milestone>, Option<GuestFailure>) {
    let whole = scan(&[text]);
    let bytes: Vec<_> = text.chunks(1).collect();
    let single = scan(&bytes);
    assert_eq!(whole, single);
    (whole.0, whole.1)
}

/// `fixtures/consoles/<name>.log` holds a console, `<name>.expect` its milestones and, after `!`, the
/// code of its failure. A case is added by adding files.
#[test]
fn recorded_consoles() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/consoles");
    let mut cases = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let log = entry.unwrap().path();
        if log.extension().is_none_or(|e| e != "log") {
            continue;
        }
        let (milestones, failure) = both(&std::fs::read(&log).unwrap());
        let mut found: Vec<_> = milestones.iter().map(ToString::to_string).collect();
        found.extend(failure.map(|f| format!("!{}", f.code())));
        let expected = std::fs::read_to_string(log.with_extension("expect")).unwrap();
        let expected: Vec<_> = expected.split_whitespace().collect();
        assert_eq!(found, expected, "{}", log.display());
        cases += 1;
    }
    assert!(cases >= 6, "the fixtures are gone");
}

#[test]
fn escape_codes_and_carriage_returns_do_not_matter() {
    let text = b"\x1b[2J\x1b[01;01HBdsDxe: loading Boot0001\r\n\x1b[0m\x1b[1;1HWelcome to GRUB!\x1b[5;5H\r\r\n\
        [    0.000000] Linux ver\x1b[0msion 6.1.0\r\n[  \x1b[0;32mOK\x1b[0m  ] Reached target \
        \x1b[0;1;39mmulti-user.target\x1b[0m - Multi-User System.\r\n\x1b]0;title\x07host login: ";
    let (milestones, failure) = both(text);
    use Milestone::{Bootloader, Firmware, Kernel, Login, Target};
    assert_eq!(milestones, [Firmware, Bootloader, Kernel, Target, Login]);
    assert_eq!(failure, None);
}

#[test]
fn words_of_a_booted_guest_are_not_taken_for_the_machine() {
    let text = b"Linux version 6.1.0\nReached target multi-user.target\nhost login: root\n\
        test: Kernel panic - not syncing is handled\ngrub> \nYou are in emergency mode\n(initramfs) \nBdsDxe: x\n";
    let (milestones, failure) = both(text);
    assert_eq!(
        milestones,
        [Milestone::Kernel, Milestone::Target, Milestone::Login]
    );
    assert_eq!(failure, None);
}

#[test]
fn hostile_output_is_bounded() {
    let mut scanner = ConsoleScanner::new();
    for _ in 0..200 {
        scanner.feed(&[b'x'; 100_000]);
        scanner.feed(&[0xFF; 1000]);
        scanner.feed(b"\x1b[");
        scanner.feed(&[b'1'; 1000]);
        scanner.feed(b"\x1b]");
        scanner.feed(&[b'y'; 1000]);
    }
    let tail = scanner.tail();
    assert!(tail.len() <= TAIL_LINES + 1);
    // Bytes that are not UTF-8 become a character of three bytes each.
    assert!(tail.iter().all(|line| line.len() <= 3 * 4096));
}

#[test]
fn every_byte_soup_ends() {
    // A fixed generator (xorshift): the same soup every time.
    let mut x = 0x2545_F491_u32;
    let soup: Vec<u8> = (0..200_000)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x.to_le_bytes()[0]
        })
        .collect();
    both(&soup);
}

#[test]
fn milestones_imply_those_before() {
    for m in [
        Milestone::Kernel,
        Milestone::Init,
        Milestone::Target,
        Milestone::Login,
        Milestone::Agent,
    ] {
        assert!(m.implies().contains(&Milestone::Firmware));
        assert!(m.implies().iter().all(|i| *i < m));
    }
}
