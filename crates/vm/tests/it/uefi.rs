//! A UEFI program of a few hundred bytes, as `\EFI\BOOT\BOOTX64.EFI` on a FAT disk.

use std::time::Duration;

use amiforge_ami::{BootMode, Firmware};
use amiforge_testkit::{run, tool};
use amiforge_vm::Milestone;

use crate::fixture::{Image, boot_with, file_digest, until};

/// A PE32+ program with one section: prints `message` to COM1 and powers the machine off.
fn program(message: &str) -> Vec<u8> {
    let mut code = vec![
        0x48, 0x8D, 0x35, 0, 0, 0, 0,    // lea rsi, [rip + message]
        0xAC, // next: lodsb
        0x84, 0xC0, // test al, al
        0x74, 0x16, // jz done
        0x88, 0xC4, // mov ah, al
        0x66, 0xBA, 0xFD, 0x03, // mov dx, 0x3FD
        0xEC, // wait: in al, dx
        0xA8, 0x20, // test al, 0x20
        0x74, 0xFB, // jz wait
        0x88, 0xE0, // mov al, ah
        0x66, 0xBA, 0xF8, 0x03, // mov dx, 0x3F8
        0xEE, // out dx, al
        0xEB, 0xE7, // jmp next
        0x66, 0xBA, 0x04, 0x06, // done: mov dx, 0x604
        0x66, 0xB8, 0x00, 0x20, // mov ax, 0x2000
        0x66, 0xEF, // out dx, ax
        0xEB, 0xFE, // jmp $
    ];
    // Offsets of the two jumps, computed rather than counted.
    let (next, wait) = (7, 18);
    let jz = 10;
    let back = code.iter().rposition(|b| *b == 0xEB).unwrap() - 12;
    let done = back + 2;
    code[jz + 1] = u8::try_from(done - (jz + 2)).unwrap();
    code[back + 1] = u8::try_from(next as i64 - (back as i64 + 2) + 256).unwrap();
    assert_eq!(code[wait], 0xEC);
    let text = u32::try_from(code.len() - 7).unwrap();
    code[3..7].copy_from_slice(&text.to_le_bytes());
    code.extend(message.bytes());
    code.push(0);

    let mut pe = vec![0; 0x200];
    let mut put = |at: usize, bytes: &[u8]| pe[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3C, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x44, &0x8664_u16.to_le_bytes()); // machine
    put(0x46, &1_u16.to_le_bytes()); // sections
    put(0x54, &240_u16.to_le_bytes()); // size of the optional header
    put(0x56, &0x0022_u16.to_le_bytes()); // executable, large addresses
    let opt = 0x58;
    put(opt, &0x20B_u16.to_le_bytes());
    put(opt + 16, &0x1000_u32.to_le_bytes()); // entry point
    put(opt + 20, &0x1000_u32.to_le_bytes()); // base of code
    put(opt + 32, &0x1000_u32.to_le_bytes()); // section alignment
    put(opt + 36, &0x200_u32.to_le_bytes()); // file alignment
    put(opt + 56, &0x2000_u32.to_le_bytes()); // size of image
    put(opt + 60, &0x200_u32.to_le_bytes()); // size of headers
    put(opt + 68, &10_u16.to_le_bytes()); // subsystem: EFI application
    put(opt + 108, &16_u32.to_le_bytes()); // data directories
    let section = opt + 240;
    put(section, b".text");
    put(
        section + 8,
        &u32::try_from(code.len()).unwrap().to_le_bytes(),
    );
    put(section + 12, &0x1000_u32.to_le_bytes());
    put(section + 16, &0x400_u32.to_le_bytes());
    put(section + 20, &0x200_u32.to_le_bytes());
    put(section + 36, &0x6000_0020_u32.to_le_bytes());
    pe.extend(&code);
    pe.resize(0x600, 0);
    pe
}

#[test]
fn a_uefi_guest_gets_through() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("esp.img");
    let efi = dir.path().join("BOOTX64.EFI");
    std::fs::write(
        &efi,
        program("[ 0.0] Linux version 6.1\r\nWelcome to Tiny!\r\nhost login: "),
    )
    .unwrap();
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(4 << 20)
        .unwrap();
    run(tool("mformat")
        .arg("-i")
        .arg(&disk)
        .args(["-v", "ESP", "::"]));
    run(tool("mmd")
        .arg("-i")
        .arg(&disk)
        .args(["::/EFI", "::/EFI/BOOT"]));
    run(tool("mcopy")
        .arg("-i")
        .arg(&disk)
        .arg(&efi)
        .arg("::/EFI/BOOT/BOOTX64.EFI"));

    let image = Image::new(&std::fs::read(&disk).unwrap(), BootMode::Uefi);
    let before = file_digest(&image.disk());
    let spec = image.spec(Firmware::Uefi, image.options(Duration::from_secs(300)));
    let run = boot_with(&spec, &mut until(Milestone::Login)).unwrap();
    assert!(run.passed, "{run:?}");
    assert!(
        !run.milestones[0].inferred,
        "OVMF speaks on the serial line: {}",
        image.console()
    );
    assert!(
        run.milestones
            .iter()
            .any(|m| m.name == Milestone::Bootloader && m.inferred)
    );
    assert_eq!(file_digest(&image.disk()), before);
    image.assert_clean();
}
