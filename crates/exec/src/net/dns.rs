//! Questions to a name server, and its answers.
//!
//! ```text
//! 0   id          u16 big-endian
//! 2   flags       u16: 0x8000 answer, 0x0200 cut short, 0x0100 please recurse, low four bits: how it went
//! 4   counts      u16 each: questions, answers, authorities, additional
//! 12  questions   name, type u16, class u16
//!     answers     name, type u16, class u16, ttl u32, length u16, data
//! name            labels of a length byte and as many bytes, up to a zero; 0xc0.. is a place further up
//! ```
//!
//! RFC 1035, section 4; RFC 3596 (AAAA). Answers come from anybody on the way: who answers is told
//! by TLS, not here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest answer over UDP without extensions, and over TCP.
pub(super) const MAX_UDP: usize = 512;

/// Addresses that are taken of one answer.
const MAX_ADDRESSES: usize = 16;

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const FLAG_ANSWER: u16 = 0x8000;
const FLAG_CUT: u16 = 0x0200;
const FLAG_RECURSE: u16 = 0x0100;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    A,
    Aaaa,
}

impl Record {
    const fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }
}

/// What a server says to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The addresses; none when the name exists without any.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoName,
    /// Too long for UDP.
    Cut,
    /// The server could not or would not say.
    Failed(u8),
}

/// The question as sent. `None` when the name cannot stand in one.
pub(super) fn question(id: u16, name: &str, record: Record) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(HEADER + name.len() + 6);
    for word in [id, FLAG_RECURSE, 1, 0, 0, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend(encoded(name)?);
    out.extend_from_slice(&record.code().to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(out)
}

fn encoded(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..=63).contains(n))?;
        out.push(length);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    (out.len() <= 255).then_some(out)
}

/// Reads an answer. `None` when it is none to this question: another one's, or nonsense.
pub(super) fn answer(message: &[u8], id: u16, name: &str, record: Record) -> Option<Answer> {
    let mut reader = Reader { message, at: 0 };
    let (found, flags) = (reader.word()?, reader.word()?);
    if found != id || flags & FLAG_ANSWER == 0 {
        return None;
    }
    let (questions, answers) = (reader.word()?, reader.word()?);
    reader.skip(4)?;
    let asked = encoded(name)?;
    if questions != 1 || !reader.take(asked.len())?.eq_ignore_ascii_case(&asked) {
        return None;
    }
    if (reader.word()?, reader.word()?) != (record.code(), CLASS_IN) {
        return None;
    }
    let code = flags.to_be_bytes()[1] & 0x0f;
    match code {
        _ if flags & FLAG_CUT != 0 => return Some(Answer::Cut),
        0 => {}
        3 => return Some(Answer::NoName),
        other => return Some(Answer::Failed(other)),
    }
    let mut addresses = Vec::new();
    for _ in 0..answers {
        reader.skip_name()?;
        let (kind, class) = (reader.word()?, reader.word()?);
        reader.skip(4)?;
        let length = reader.word()?;
        let data = reader.take(usize::from(length))?;
        // Other records on the way, aliases above all, lead to these.
        if kind == record.code() && class == CLASS_IN && addresses.len() < MAX_ADDRESSES {
            addresses.push(match record {
                Record::A => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into(),
                Record::Aaaa => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into(),
            });
        }
    }
    Some(Answer::Addresses(addresses))
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(|_| ())
    }

    fn word(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    /// A name ends with a zero or with a place further up, which is not followed.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.take(1)?.first()? {
                0 => return Some(()),
                n @ 1..=63 => self.skip(usize::from(*n))?,
                0xc0..=0xff => return self.skip(1),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to `question` with these records after a question like it.
    fn reply(question: &[u8], flags: u16, records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
        let mut out = question.to_vec();
        out[2..4].copy_from_slice(&flags.to_be_bytes());
        out[7] = u8::try_from(records.len()).unwrap();
        for (name, kind, data) in records {
            out.extend_from_slice(name);
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
            out.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
            out.extend_from_slice(data);
        }
        out
    }

    #[test]
    fn a_question_is_as_the_rfc_has_it() {
        let bytes = question(0x1234, "ab.example.", Record::A).unwrap();
        assert_eq!(
            bytes,
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02ab\x07example\x00\x00\x01\x00\x01"
        );
        let long = "x".repeat(64);
        for name in ["", "a..b", long.as_str(), &"abc.".repeat(70)] {
            assert_eq!(question(1, name, Record::A), None, "{name}");
        }
    }

    #[test]
    fn addresses_are_read_through_aliases() {
        let asked = question(7, "h.test", Record::A).unwrap();
        let bytes = reply(
            &asked,
            0x8180,
            &[
                (b"\xc0\x0c", 5, b"\x01a\xc0\x0e"),
                (b"\x01a\xc0\x0e", 1, &[192, 0, 2, 1]),
                (b"\xc0\x0c", 1, &[192, 0, 2, 2]),
            ],
        );
        let found = answer(&bytes, 7, "H.test", Record::A).unwrap();
        let expected = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().unwrap());
        assert_eq!(found, Answer::Addresses(expected.to_vec()));
        let asked = question(7, "h.test", Record::Aaaa).unwrap();
        let bytes = reply(&asked, 0x8180, &[(b"\xc0\x0c", 28, &[0; 16])]);
        let found = answer(&bytes, 7, "h.test", Record::Aaaa).unwrap();
        assert_eq!(found, Answer::Addresses(vec!["::".parse().unwrap()]));
    }

    #[test]
    fn other_answers_are_told_apart() {
        let asked = question(7, "h.test", Record::A).unwrap();
        let read = |bytes: &[u8]| answer(bytes, 7, "h.test", Record::A);
        assert_eq!(read(&reply(&asked, 0x8183, &[])), Some(Answer::NoName));
        assert_eq!(read(&reply(&asked, 0x8182, &[])), Some(Answer::Failed(2)));
        assert_eq!(read(&reply(&asked, 0x8380, &[])), Some(Answer::Cut));
        assert_eq!(
            read(&reply(&asked, 0x8180, &[])),
            Some(Answer::Addresses(Vec::new()))
        );
        assert_eq!(read(&asked), None, "a question is no answer");
        assert_eq!(
            answer(&reply(&asked, 0x8180, &[]), 8, "h.test", Record::A),
            None
        );
        assert_eq!(
            answer(&reply(&asked, 0x8180, &[]), 7, "other", Record::A),
            None
        );
    }

    #[test]
    fn what_is_cut_or_lies_about_its_length_is_no_answer() {
        let asked = question(7, "h.test", Record::A).unwrap();
        let whole = reply(&asked, 0x8180, &[(b"\xc0\x0c", 1, &[192, 0, 2, 1])]);
        for end in 0..whole.len() {
            assert_eq!(answer(&whole[..end], 7, "h.test", Record::A), None, "{end}");
        }
        // A name that points at itself, one with a reserved length, an address of five bytes.
        for record in [
            (&b"\xc0"[..], 1, &[192, 0, 2, 1][..]),
            (b"\x80x", 1, &[192, 0, 2, 1]),
            (b"\xc0\x0c", 1, &[192, 0, 2, 1, 9]),
        ] {
            assert_eq!(
                read_all(&reply(&asked, 0x8180, &[record])),
                None,
                "{record:?}"
            );
        }
        let many = vec![(&b"\xc0\x0c"[..], 1, &[192, 0, 2, 1][..]); 200];
        let Some(Answer::Addresses(found)) = read_all(&reply(&asked, 0x8180, &many)) else {
            panic!("no addresses")
        };
        assert_eq!(found.len(), MAX_ADDRESSES);
    }

    fn read_all(bytes: &[u8]) -> Option<Answer> {
        answer(bytes, 7, "h.test", Record::A)
    }
}
