//! Credentials, region and endpoint from the usual places, in the order of the SDKs: environment, shared
//! files, container, instance. AWS SDKs and Tools Reference Guide, standardized credential providers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use amiforge_recipe::actions::WebUrl;
use serde::Deserialize;
use ureq::http::Method;

use super::profile::Sections;
use super::{AwsAccess, Credentials};
use crate::net::{Address, Ask, Http, Patience};
use crate::outside::Outside;

/// Bytes of an answer with credentials.
const MAX_ANSWER: u64 = 64 << 10;

/// Bytes of a shared file.
const MAX_FILE: u64 = 4 << 20;

/// For one request to a service on this machine's link.
const LINK_TIME: Duration = Duration::from_secs(2);

const METADATA: &str = "http://169.254.169.254";
const CONTAINER: &str = "http://169.254.170.2";

/// Where to look: variables named `AWS_…` and the home folder.
#[derive(Clone, Default)]
pub struct AwsEnvironment {
    variables: BTreeMap<String, String>,
    home: Option<PathBuf>,
}

impl std::fmt::Debug for AwsEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AwsEnvironment")
    }
}

/// What one place knows.
enum Found {
    Nothing,
    Credentials(Credentials),
    /// It should, and does not: looking elsewhere would use somebody else's.
    Broken(String),
}

impl AwsEnvironment {
    /// Keeps what matters of an environment.
    pub fn new(all: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut found = Self::default();
        for (name, value) in all {
            if name == "HOME" && !value.is_empty() {
                found.home = Some(PathBuf::from(value));
            } else if name.starts_with("AWS_") && !value.is_empty() {
                found.variables.insert(name, value);
            }
        }
        found
    }

    /// Looks for everything. `offline` asks no service, and starts no program that might.
    #[must_use]
    pub fn find(&self, offline: bool) -> AwsAccess {
        let files = Files::read(self);
        let mut access = AwsAccess {
            credentials: None,
            missing: None,
            region: self.region(&files),
            endpoint: self.endpoint(&files),
        };
        let places: [&dyn Fn() -> Found; 5] = [
            &|| self.of_variables(),
            &|| self.of_web_identity(),
            &|| files.credentials(offline),
            &|| self.of_container(offline),
            &|| self.of_instance(offline),
        ];
        for place in places {
            match place() {
                Found::Nothing => {}
                Found::Credentials(found) => {
                    access.credentials = Some(found);
                    break;
                }
                Found::Broken(why) => {
                    access.missing = Some(why);
                    break;
                }
            }
        }
        access
    }

    /// A role by the token of a web identity would have to be asked for; the credentials of the machine
    /// would be somebody else's.
    fn of_web_identity(&self) -> Found {
        match self.get("AWS_WEB_IDENTITY_TOKEN_FILE") {
            None => Found::Nothing,
            Some(_) => Found::Broken(
                "AWS_WEB_IDENTITY_TOKEN_FILE names a token, which is not exchanged here: \
                 `eval \"$(aws configure export-credentials --format env)\"` does it"
                    .to_owned(),
            ),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    fn is_true(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|v| v.eq_ignore_ascii_case("true"))
    }

    fn region(&self, files: &Files) -> Option<String> {
        let given = self
            .get("AWS_REGION")
            .or_else(|| self.get("AWS_DEFAULT_REGION"))
            .or_else(|| files.get("region"));
        given.map(str::to_owned)
    }

    fn endpoint(&self, files: &Files) -> Option<String> {
        if self.is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") {
            return None;
        }
        let given = self
            .get("AWS_ENDPOINT_URL_S3")
            .or_else(|| self.get("AWS_ENDPOINT_URL"))
            .or_else(|| files.service_endpoint())
            .or_else(|| files.get("endpoint_url"));
        given.map(str::to_owned)
    }

    fn of_variables(&self) -> Found {
        let id = self.get("AWS_ACCESS_KEY_ID");
        let secret = self.get("AWS_SECRET_ACCESS_KEY");
        match (id, secret) {
            (None, None) => Found::Nothing,
            (Some(id), Some(secret)) => Found::Credentials(Credentials {
                access_key_id: id.to_owned(),
                secret_access_key: secret.to_owned(),
                session_token: self.get("AWS_SESSION_TOKEN").map(str::to_owned),
                source: "the environment".to_owned(),
            }),
            _ => Found::Broken(
                "of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY only one is set".to_owned(),
            ),
        }
    }

    /// ECS, EKS and the like.
    fn of_container(&self, offline: bool) -> Found {
        let address = match (
            self.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            self.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ) {
            (Some(path), _) => format!("{CONTAINER}/{}", path.trim_start_matches('/')),
            (None, Some(address)) => address.to_owned(),
            (None, None) => return Found::Nothing,
        };
        if offline {
            return Found::Broken("offline, the container's credentials are not asked for".into());
        }
        let Ok(url) = WebUrl::parse(&address) else {
            return Found::Broken("AWS_CONTAINER_CREDENTIALS_FULL_URI is not a URL".to_owned());
        };
        if !url.is_secure() && !is_own(url.host()) {
            // The token would go to anybody.
            let text = "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor of this machine";
            return Found::Broken(text.to_owned());
        }
        let token = match self.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(path) => match read(Path::new(path)) {
                Some(text) => Some(text.trim().to_owned()),
                None => return Found::Broken(format!("{path} cannot be read")),
            },
            None => self
                .get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
                .map(str::to_owned),
        };
        let headers: Vec<_> = token.map(|t| ("authorization", t)).into_iter().collect();
        let asked =
            ask(Method::GET, &url, &headers).and_then(|text| answer(&text, "the container"));
        match asked {
            Ok(found) => Found::Credentials(found),
            Err(why) => Found::Broken(format!("the container's credentials: {why}")),
        }
    }

    /// The role of an EC2 instance, by version 2 of its metadata service.
    fn of_instance(&self, offline: bool) -> Found {
        if offline || self.is_true("AWS_EC2_METADATA_DISABLED") {
            return Found::Nothing;
        }
        let base = self
            .get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
            .unwrap_or(METADATA)
            .trim_end_matches('/');
        let url = |path: &str| {
            WebUrl::parse(&format!("{base}/latest/{path}"))
                .map_err(|e| format!("AWS_EC2_METADATA_SERVICE_ENDPOINT: {e}"))
        };
        let life = [("x-aws-ec2-metadata-token-ttl-seconds", "300".to_owned())];
        let token = url("api/token").and_then(|url| ask(Method::PUT, &url, &life));
        let Ok(token) = token else {
            // Not on an instance.
            return Found::Nothing;
        };
        let header = [("x-aws-ec2-metadata-token", token.trim().to_owned())];
        let get = |path: &str| url(path).and_then(|url| ask(Method::GET, &url, &header));
        let roles = "meta-data/iam/security-credentials/";
        let Ok(role) = get(roles) else {
            // An instance without a role.
            return Found::Nothing;
        };
        let role = role.lines().next().unwrap_or_default().trim().to_owned();
        let asked = get(&format!("{roles}{role}"))
            .and_then(|text| answer(&text, "the role of this instance"));
        match asked {
            Ok(found) => Found::Credentials(found),
            Err(why) => Found::Broken(format!("the role of this instance: {why}")),
        }
    }
}

/// Hosts that are this machine or its link to the container service.
fn is_own(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"].contains(&bare)
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|a| a.is_loopback())
}

/// The profile in use, with the files that it stands in.
struct Files {
    profile: String,
    /// Somebody named the profile.
    named: bool,
    config: Sections,
    credentials: Sections,
}

impl Files {
    fn read(env: &AwsEnvironment) -> Self {
        let named = env
            .get("AWS_PROFILE")
            .or_else(|| env.get("AWS_DEFAULT_PROFILE"));
        let file = |variable: &str, name: &str| {
            let path = match (env.get(variable), &env.home) {
                (Some(path), Some(home)) if path.starts_with("~/") => {
                    home.join(path.trim_start_matches("~/"))
                }
                (Some(path), _) => PathBuf::from(path),
                (None, Some(home)) => home.join(".aws").join(name),
                (None, None) => return Sections::default(),
            };
            Sections::parse(&read(&path).unwrap_or_default())
        };
        Self {
            profile: named.unwrap_or("default").to_owned(),
            named: named.is_some(),
            config: file("AWS_CONFIG_FILE", "config"),
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        }
    }

    /// In the file of configuration every profile but the default has a prefix.
    fn section(&self) -> String {
        match self.profile.as_str() {
            "default" if !self.config.has("profile default") => "default".to_owned(),
            name => format!("profile {name}"),
        }
    }

    /// A value of the profile; the file of credentials wins.
    fn get(&self, key: &str) -> Option<&str> {
        self.credentials
            .get(&self.profile, key)
            .or_else(|| self.config.get(&self.section(), key))
    }

    fn service_endpoint(&self) -> Option<&str> {
        let services = self.config.get(&self.section(), "services")?;
        self.config
            .get(&format!("services {services}"), "s3.endpoint_url")
    }

    fn credentials(&self, offline: bool) -> Found {
        let name = &self.profile;
        let (id, secret) = (
            self.get("aws_access_key_id"),
            self.get("aws_secret_access_key"),
        );
        if let (Some(id), Some(secret)) = (id, secret) {
            return Found::Credentials(Credentials {
                access_key_id: id.to_owned(),
                secret_access_key: secret.to_owned(),
                session_token: self.get("aws_session_token").map(str::to_owned),
                source: format!("the profile {name}"),
            });
        }
        if let Some(program) = self.get("credential_process") {
            if offline {
                let text = format!("offline, the program of the profile {name} is not started");
                return Found::Broken(text);
            }
            return match run(program).and_then(|text| answer(&text, &format!("the profile {name}")))
            {
                Ok(found) => Found::Credentials(found),
                Err(why) => {
                    Found::Broken(format!("credential_process of the profile {name}: {why}"))
                }
            };
        }
        let other = [
            "role_arn",
            "sso_session",
            "sso_start_url",
            "web_identity_token_file",
            "login_session",
        ]
        .into_iter()
        .find(|key| self.get(key).is_some());
        if let Some(key) = other {
            return Found::Broken(format!(
                "the profile {name} has {key}, which amiforge does not resolve; run: eval \"$(aws configure export-credentials --profile {name} --format env)\""
            ));
        }
        let known = self.credentials.has(name) || self.config.has(&self.section());
        if self.named && !known {
            return Found::Broken(format!("there is no profile {name}"));
        }
        Found::Nothing
    }
}

/// A small file as text.
fn read(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Standard output of a program that a profile names, started as the SDKs do.
fn run(program: &str) -> Result<String, String> {
    let output = Command::new("/bin/sh")
        .args(["-c", program])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(format!("it ended with {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A small answer of a service on this machine.
fn ask(method: Method, url: &WebUrl, headers: &[(&str, String)]) -> Result<String, String> {
    let outside = Outside {
        patience: Patience {
            connect: LINK_TIME,
            silence: LINK_TIME,
            ..Patience::default()
        },
        ..Outside::default()
    };
    let env = BTreeMap::new();
    let place = url.to_string();
    let response = Http::new(&env, &outside)
        .send(Ask {
            method,
            address: &Address::from(url),
            place: &place,
            headers,
            insecure: false,
            deadline: Some(Instant::now() + LINK_TIME * 2),
            body: &[][..],
        })
        .map_err(|e| e.to_string())?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(format!("{place} answered with status {status}"));
    }
    response
        .into_body()
        .into_with_config()
        .limit(MAX_ANSWER)
        .read_to_string()
        .map_err(|e| e.to_string())
}

/// Credentials as services and programs write them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    #[serde(alias = "SessionToken")]
    token: Option<String>,
    message: Option<String>,
}

/// An error never quotes the text.
fn answer(text: &str, source: &str) -> Result<Credentials, String> {
    let answer: Answer =
        serde_json::from_str(text).map_err(|_| "the answer is not what was expected".to_owned())?;
    match (answer.access_key_id, answer.secret_access_key) {
        (Some(id), Some(secret)) if !id.is_empty() && !secret.is_empty() => Ok(Credentials {
            access_key_id: id,
            secret_access_key: secret,
            session_token: answer.token.filter(|t| !t.is_empty()),
            source: source.to_owned(),
        }),
        _ => Err(answer
            .message
            .unwrap_or_else(|| "the answer has no credentials".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The environment of a home with these two files, without services.
    fn environment(
        variables: &[(&str, &str)],
        config: &str,
        credentials: &str,
    ) -> (tempfile::TempDir, AwsEnvironment) {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join(".aws")).unwrap();
        fs_err::write(dir.path().join(".aws/config"), config).unwrap();
        fs_err::write(dir.path().join(".aws/credentials"), credentials).unwrap();
        let home = dir.path().to_str().unwrap().to_owned();
        let mut all = vec![
            ("HOME".to_owned(), home),
            ("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned()),
            ("PATH".to_owned(), "/bin".to_owned()),
        ];
        all.extend(
            variables
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        );
        (dir, AwsEnvironment::new(all))
    }

    fn id(access: &AwsAccess) -> Option<&str> {
        access
            .credentials
            .as_ref()
            .map(|c| c.access_key_id.as_str())
    }

    const CONFIG: &str = "[default]\nregion = eu-north-1\n[profile dev]\nregion = us-west-2\n\
        services = mine\n[services mine]\ns3 =\n  endpoint_url = http://s3.test\n\
        [profile plain]\nendpoint_url = http://all.test\naws_access_key_id = OF_CONFIG\n\
        aws_secret_access_key = s\n[profile role]\nrole_arn = arn:aws:iam::1:role/x\n\
        [profile program]\ncredential_process = echo '{\"Version\": 1, \"AccessKeyId\": \"OF_PROGRAM\", \"SecretAccessKey\": \"s\", \"SessionToken\": \"t\"}'\n\
        [profile fails]\ncredential_process = exit 3\n";
    const CREDENTIALS: &str = "[default]\naws_access_key_id = OF_DEFAULT\naws_secret_access_key = s\n\
        [dev]\naws_access_key_id = OF_DEV\naws_secret_access_key = s\naws_session_token = t\n";

    #[test]
    fn the_environment_comes_before_the_files() {
        let keys = [
            ("AWS_ACCESS_KEY_ID", "OF_ENV"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ];
        let (_dir, env) = environment(&keys, CONFIG, CREDENTIALS);
        let access = env.find(true);
        assert_eq!(id(&access), Some("OF_ENV"));
        assert_eq!(access.region.as_deref(), Some("eu-north-1"));
        let (_dir, env) = environment(&[("AWS_ACCESS_KEY_ID", "HALF")], CONFIG, CREDENTIALS);
        let access = env.find(true);
        assert!(id(&access).is_none() && access.missing.unwrap().contains("only one"));
    }

    #[test]
    fn profiles_give_credentials_region_and_endpoint() {
        let (_dir, env) = environment(&[], CONFIG, CREDENTIALS);
        assert_eq!(id(&env.find(true)), Some("OF_DEFAULT"));
        let (_dir, env) = environment(&[("AWS_PROFILE", "dev")], CONFIG, CREDENTIALS);
        let access = env.find(true);
        assert_eq!(id(&access), Some("OF_DEV"));
        assert_eq!(access.region.as_deref(), Some("us-west-2"));
        assert_eq!(access.endpoint.as_deref(), Some("http://s3.test"));
        let (_dir, env) = environment(
            &[
                ("AWS_DEFAULT_PROFILE", "plain"),
                ("AWS_DEFAULT_REGION", "r1"),
                ("AWS_REGION", "r2"),
            ],
            CONFIG,
            CREDENTIALS,
        );
        let access = env.find(true);
        assert_eq!(id(&access), Some("OF_CONFIG"));
        assert_eq!(access.region.as_deref(), Some("r2"));
        assert_eq!(access.endpoint.as_deref(), Some("http://all.test"));
        let (_dir, env) = environment(&[("HOME", "/no/such")], CONFIG, CREDENTIALS);
        assert!(env.find(true).credentials.is_none());
    }

    #[test]
    fn endpoints_of_the_environment_win_and_can_be_ignored() {
        let both = [
            ("AWS_ENDPOINT_URL", "http://any.test"),
            ("AWS_ENDPOINT_URL_S3", "http://only-s3.test"),
            ("AWS_PROFILE", "dev"),
        ];
        let (_dir, env) = environment(&both, CONFIG, CREDENTIALS);
        assert_eq!(
            env.find(true).endpoint.as_deref(),
            Some("http://only-s3.test")
        );
        let (_dir, env) = environment(&both[..1], CONFIG, CREDENTIALS);
        assert_eq!(env.find(true).endpoint.as_deref(), Some("http://any.test"));
        let ignored = [both[0], ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
        let (_dir, env) = environment(&ignored, CONFIG, CREDENTIALS);
        assert_eq!(env.find(true).endpoint, None);
    }

    #[test]
    fn files_may_lie_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("c");
        let credentials = dir.path().join("k");
        fs_err::write(&config, "[default]\nregion = r9\n").unwrap();
        fs_err::write(&credentials, CREDENTIALS).unwrap();
        let (_dir, env) = environment(
            &[
                ("AWS_CONFIG_FILE", config.to_str().unwrap()),
                ("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap()),
            ],
            "",
            "",
        );
        let access = env.find(true);
        assert_eq!(
            (id(&access), access.region.as_deref()),
            (Some("OF_DEFAULT"), Some("r9"))
        );
    }

    #[test]
    fn a_program_of_a_profile_is_started_and_its_failure_told() {
        let (_dir, env) = environment(&[("AWS_PROFILE", "program")], CONFIG, CREDENTIALS);
        let access = env.find(false);
        assert_eq!(id(&access), Some("OF_PROGRAM"));
        assert_eq!(
            access.credentials.unwrap().session_token.as_deref(),
            Some("t")
        );
        assert!(env.find(true).missing.unwrap().contains("offline"));
        let (_dir, env) = environment(&[("AWS_PROFILE", "fails")], CONFIG, CREDENTIALS);
        assert!(env.find(false).missing.unwrap().contains("exit status: 3"));
    }

    #[test]
    fn what_cannot_be_resolved_says_what_to_run() {
        let (_dir, env) = environment(&[("AWS_PROFILE", "role")], CONFIG, CREDENTIALS);
        let why = env.find(true).missing.unwrap();
        assert!(
            why.contains("role_arn") && why.contains("export-credentials --profile role"),
            "{why}"
        );
        let (_dir, env) = environment(&[("AWS_PROFILE", "nobody")], CONFIG, CREDENTIALS);
        assert_eq!(
            env.find(true).missing.as_deref(),
            Some("there is no profile nobody")
        );
        let (_dir, env) = environment(&[], "", "");
        assert_eq!(env.find(true), AwsAccess::default());
    }

    #[test]
    fn services_of_container_and_instance_are_asked_last() {
        let server = amiforge_testkit::WebServer::start();
        let endpoint = server.url("");
        let instance = [
            ("AWS_EC2_METADATA_DISABLED", "false"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint.as_str()),
        ];
        let (_dir, env) = environment(&instance, "", "");
        let found = env.find(false).credentials.unwrap();
        assert_eq!(found.access_key_id, "OF_SERVICE");
        assert_eq!(found.session_token.as_deref(), Some("token"));
        assert_eq!(
            env.find(true),
            AwsAccess::default(),
            "offline nobody is asked"
        );
        assert_eq!(server.requests().len(), 2, "{:?}", server.requests());

        let (dir, url) = (tempfile::tempdir().unwrap(), server.url("/container/x"));
        let token = dir.path().join("token");
        fs_err::write(&token, "container-token\n").unwrap();
        let container = [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
            (
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                token.to_str().unwrap(),
            ),
        ];
        let (_dir, env) = environment(&container, "", "");
        assert_eq!(id(&env.find(false)), Some("OF_SERVICE"));
        let (_dir, env) = environment(&container[..1], "", "");
        let why = env.find(false).missing.unwrap();
        assert!(why.contains("answered with status 403"), "{why}");
        let (_dir, env) = environment(&container, "", CREDENTIALS);
        assert_eq!(id(&env.find(false)), Some("OF_DEFAULT"), "files come first");
    }

    #[test]
    fn a_container_token_goes_to_this_machine_only() {
        let full = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://evil.test/x")];
        let (_dir, env) = environment(&full, "", "");
        assert!(env.find(false).missing.unwrap().contains("neither https"));
        for host in [
            "localhost",
            "127.0.0.9",
            "[::1]",
            "169.254.170.23",
            "[fd00:ec2::23]",
        ] {
            assert!(is_own(host), "{host}");
        }
        assert!(!is_own("10.0.0.1") && !is_own("localhost.evil"));
    }
}
