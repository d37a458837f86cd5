//! Where files are downloaded from.

use std::time::Duration;

use ureq::Agent;

use crate::Entry;

/// The addresses of files, and how often and how long they are tried.
#[derive(Debug, Clone)]
pub struct Mirrors {
    pub(super) base: Option<String>,
    /// The number of attempts at one mirror.
    pub attempts: u32,
    /// The pause after the first failure; doubled after each further one.
    pub pause: Duration,
    /// How long a mirror may send nothing before it is given up.
    pub timeout: Duration,
}

impl Mirrors {
    /// The publishers' mirrors.
    pub fn official() -> Self {
        Self {
            base: None,
            attempts: 4,
            pause: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
        }
    }

    /// One mirror, laid out as the data folder is: `BASE/mnist/train-images-idx3-ubyte.gz`,
    /// `BASE/cifar-10-binary.tar.gz`. Files are verified all the same.
    pub fn at(base: impl Into<String>) -> Self {
        Self {
            base: Some(base.into()),
            ..Self::official()
        }
    }

    /// The mirror named by the environment variable `RAMPART_MIRROR`, else the publishers'.
    pub fn from_env() -> Self {
        match std::env::var("RAMPART_MIRROR") {
            Ok(base) if !base.is_empty() => Self::at(base),
            _ => Self::official(),
        }
    }

    pub(super) fn urls(&self, entry: &Entry, path: &str) -> Vec<String> {
        match &self.base {
            Some(base) => vec![format!("{}/{path}", base.trim_end_matches('/'))],
            None => {
                let file = path.rsplit('/').next().unwrap_or(path);
                entry.mirrors.iter().map(|mirror| format!("{mirror}{file}")).collect()
            }
        }
    }

    pub(super) fn agent(&self) -> Agent {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("rampart/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(self.timeout))
            .timeout_connect(Some(self.timeout))
            .timeout_recv_response(Some(self.timeout))
            .timeout_per_read(Some(self.timeout));
        // A mirror on this machine is asked directly, without a proxy.
        let local = ["http://127.0.0.1", "http://localhost"];
        if (self.base.as_ref()).is_some_and(|base| local.iter().any(|host| base.starts_with(host))) {
            config = config.proxy(None);
        }
        config.build().new_agent()
    }
}
