//! Guests of a few dozen bytes, for probing acceleration and for tests.
//!
//! A real-mode program in the boot sector of a 1 MiB disk (SeaBIOS does not boot a one-sector
//! disk). It prints to COM1 by polling the line status register, so it needs nothing but a CPU.

/// How a [`TinyGuest`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TinyEnding {
    /// Writes the value to port 0xF4. With QEMU's `isa-debug-exit` there, QEMU's exit code is
    /// `value * 2 + 1`.
    DebugExit(u8),
    /// Loops for ever.
    Hang,
    /// Powers the machine off: `SLP_EN` to the ICH9's PM1a control register, at 0x604 where
    /// SeaBIOS puts it.
    PowerOff,
    /// Resets the machine through port 0xCF9.
    Reset,
}

/// A guest that prints a text, perhaps writes to its disk, and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TinyGuest {
    /// What it prints; cut at the 400 bytes that fit.
    pub message: String,
    /// Whether it writes its own sector to sector 1 of the boot disk first.
    pub writes: bool,
    /// How it ends.
    pub ending: TinyEnding,
}

/// Room for the text in a boot sector behind the longest program.
const MESSAGE_MAX: usize = 400;

impl TinyGuest {
    /// The disk: 1 MiB, boot sector first, signature at 510.
    #[must_use]
    pub fn disk(&self) -> Vec<u8> {
        let mut code = vec![
            0x31, 0xC0, // xor ax, ax
            0x8E, 0xD8, // mov ds, ax
            0x8E, 0xC0, // mov es, ax
            0xFC, // cld
        ];
        if self.writes {
            code.extend([
                0xB8, 0x01, 0x03, // mov ax, 0x0301: write one sector
                0xB9, 0x02, 0x00, // mov cx, 2: cylinder 0, sector 2 (counted from 1)
                0xB6, 0x00, // mov dh, 0: head 0; dl is the boot drive
                0xBB, 0x00, 0x7C, // mov bx, 0x7C00
                0xCD, 0x13, // int 0x13
            ]);
        }
        if !self.message.is_empty() {
            // SeaBIOS prints to the serial line from its timer interrupt: wait until it has done.
            code.extend([
                0xFB, // sti
                0xB9, 0x08, 0x00, // mov cx, 8: ticks of 55 ms
                0xF4, // tick: hlt
                0xE2, 0xFD, // loop tick
            ]);
        }
        code.push(0xBE); // mov si, message
        let message_operand = code.len();
        code.extend([0, 0]);
        code.extend([
            0xAC, // next: lodsb
            0x84, 0xC0, // test al, al
            0x74, 0x12, // jz done
            0x88, 0xC4, // mov ah, al
            0xBA, 0xFD, 0x03, // mov dx, 0x3FD
            0xEC, // wait: in al, dx
            0xA8, 0x20, // test al, 0x20: transmitter empty
            0x74, 0xFB, // jz wait
            0x88, 0xE0, // mov al, ah
            0xBA, 0xF8, 0x03, // mov dx, 0x3F8
            0xEE, // out dx, al
            0xEB, 0xE9, // jmp next
        ]); // done:
        match self.ending {
            TinyEnding::DebugExit(value) => code.extend([0xBA, 0xF4, 0x00, 0xB0, value, 0xEE]),
            TinyEnding::Hang => {}
            TinyEnding::PowerOff => code.extend([0xBA, 0x04, 0x06, 0xB8, 0x00, 0x20, 0xEF]),
            TinyEnding::Reset => code.extend([0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE]),
        }
        code.extend([0xEB, 0xFE]); // jmp $
        let address = u16::try_from(0x7C00 + code.len()).unwrap_or(0x7C00);
        code[message_operand..message_operand + 2].copy_from_slice(&address.to_le_bytes());
        code.extend(self.message.bytes().filter(|b| *b != 0).take(MESSAGE_MAX));
        code.push(0);

        let mut disk = vec![0; 1 << 20];
        disk[..code.len()].copy_from_slice(&code);
        disk[510..512].copy_from_slice(&[0x55, 0xAA]);
        disk
    }
}
