//! What the fuzz targets reach of the parsers that are not public; compiled for them alone.

use std::cell::RefCell;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use amiforge_ami::CreationDate;
use amiforge_ami::ec2::{AccountId, HttpTokens, MetadataOptions, Region};
use amiforge_types::{Arch, Timestamp};

use crate::imds::{Metadata, Service, read_request};
use crate::nbd::{BlockDevice, converse};

/// A device that knows when it is asked for what it has not.
struct Checked(Mutex<Vec<u8>>);

const BYTES: usize = 64 << 10;

impl Checked {
    fn range(&self, offset: u64, len: u64) -> std::ops::Range<usize> {
        let end = offset.checked_add(len).expect("within the device");
        assert!(end <= BYTES as u64, "within the device");
        usize::try_from(offset).expect("small")..usize::try_from(end).expect("small")
    }
}

impl BlockDevice for Checked {
    fn len(&self) -> u64 {
        BYTES as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let range = self.range(offset, buf.len() as u64);
        buf.copy_from_slice(&self.0.lock().expect("one thread")[range]);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let range = self.range(offset, data.len() as u64);
        self.0.lock().expect("one thread")[range].copy_from_slice(data);
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64, _: bool) -> io::Result<()> {
        let range = self.range(offset, len);
        self.0.lock().expect("one thread")[range].fill(0);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes bytes for everything that a client of NBD says: handshake and requests, of a device that can be written and of one
/// that cannot.
pub fn nbd(data: &[u8]) {
    for read_only in [false, true] {
        let device = Checked(Mutex::new(vec![0xD1; BYTES]));
        let mut heard = Vec::new();
        // A client that is not understood is left.
        let _ = converse(data, &mut heard, &device, read_only);
        assert!(heard.starts_with(b"NBDMAGICIHAVEOPT"));
        let written = device
            .0
            .lock()
            .expect("one thread")
            .iter()
            .any(|b| *b != 0xD1);
        assert!(!(read_only && written), "a read-only device stays as it is");
    }
}

/// Takes bytes for everything that a guest sends to its metadata service on one connection.
pub fn http(data: &[u8]) {
    thread_local! {
        static SERVICE: RefCell<Service> = RefCell::new(service());
    }
    let mut reader = data;
    SERVICE.with_borrow_mut(|service| {
        while let Ok(Some(request)) = read_request(&mut reader) {
            let response = service.respond(&request, Duration::from_secs(1));
            let head = request.method == "HEAD";
            assert_eq!(
                response.body.len(),
                if head { 0 } else { response.content_length }
            );
            assert!(matches!(response.status, 200 | 400 | 401 | 403 | 404 | 405));
            let reads = matches!(request.method.as_str(), "GET" | "HEAD" | "PUT");
            assert!(response.status != 200 || reads, "other methods do nothing");
        }
    });
}

fn service() -> Service {
    let date = CreationDate::new(Timestamp::from_secs(1_790_000_000));
    let metadata = Metadata {
        image_id: "ami-0123456789abcdef0".parse().expect("an id"),
        launch_index: 0,
        manifest_path: "(unknown)".into(),
        ancestor_image_ids: Vec::new(),
        instance_id: "i-0123456789abcdef0".parse().expect("an id"),
        reservation_id: "r-0123456789abcdef0".parse().expect("an id"),
        account: AccountId::local(),
        region: Region::local(),
        availability_zone: "us-east-1a".into(),
        instance_type: "t3.micro".into(),
        life_cycle: "on-demand".into(),
        architecture: Arch::X86_64,
        pending_time: date,
        root_device_name: "/dev/xvda".parse().expect("a device"),
        ebs_devices: Vec::new(),
        ephemeral_devices: Vec::new(),
        mac: "02:00:00:00:00:01".into(),
        private_ip: "169.255.16.10".into(),
        subnet_cidr: "169.255.16.0/20".into(),
        vpc_cidr: "169.255.0.0/16".into(),
        private_host: "ip-169-255-16-10.ec2.internal".into(),
        public: None,
        security_groups: vec!["default".into()],
        public_key: Some(("key".into(), "ssh-ed25519 AAAA".into())),
        user_data: Some(vec![0, 0xFF]),
        product_codes: Vec::new(),
        billing_products: Vec::new(),
        monitoring: false,
        tags: [("a/b", "c"), ("0=x", "y"), (" z ", "")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        options: MetadataOptions {
            http_endpoint: true,
            http_tokens: HttpTokens::Optional,
            http_put_response_hop_limit: 1,
            instance_metadata_tags: true,
        },
        instance_action: "none".into(),
        spot: None,
        rebalance: None,
        lifecycle_state: None,
    };
    Service::new(metadata, [7; 32])
}
