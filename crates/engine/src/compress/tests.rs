use std::io::{Read, Seek};

use super::*;

fn written(data: &[u8], compression: Compression, jobs: usize) -> (Written, Vec<u8>) {
    let mut file = tempfile::tempfile().unwrap();
    let out = compressed::<io::Error>(&mut file, compression, jobs, |sink| {
        data.chunks(70_001)
            .try_for_each(|part| sink.write_all(part))
    })
    .unwrap();
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    (out, bytes)
}

fn sample(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..len)
        .map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Half of it cannot be made smaller.
            if at / 4096 % 2 == 0 {
                u8::try_from(state >> 24).unwrap()
            } else {
                b'x'
            }
        })
        .collect()
}

#[test]
fn other_readers_get_back_what_went_in() {
    for len in [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 17] {
        let data = sample(len);
        for compression in [
            Compression::None,
            Compression::Zlib(6),
            Compression::Zstd(3),
        ] {
            let (out, bytes) = written(&data, compression, 2);
            assert_eq!(out.plain, Digest::of(&data));
            assert_eq!(
                (out.digest, out.bytes),
                (Digest::of(&bytes), bytes.len() as u64)
            );
            let back = match compression {
                Compression::None => bytes,
                // One member: a reader that stops after the first gets all of it.
                Compression::Zlib(_) => {
                    let mut back = Vec::new();
                    flate2::read::GzDecoder::new(&*bytes)
                        .read_to_end(&mut back)
                        .unwrap();
                    back
                }
                Compression::Zstd(_) => zstd::decode_all(&*bytes).unwrap(),
            };
            assert!(back == data, "{len} {compression:?}");
        }
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let data = sample(5 * BLOCK + 1);
    for compression in [Compression::Zlib(1), Compression::Zstd(1)] {
        let one = written(&data, compression, 1);
        assert!(one == written(&data, compression, 7));
    }
}

#[test]
fn an_error_of_the_producer_or_of_the_file_comes_out() {
    let mut file = tempfile::tempfile().unwrap();
    let error = compressed::<io::Error>(&mut file, Compression::Zlib(6), 2, |_| {
        Err(io::Error::other("no more"))
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "no more");
    let mut full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let data = sample(40 * BLOCK);
    let error = compressed::<io::Error>(&mut full, Compression::Zlib(1), 2, |sink| {
        sink.write_all(&data)
    })
    .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}
