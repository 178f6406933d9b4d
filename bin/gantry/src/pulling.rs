//! Pulling, for `pull` and for `run`.

use std::pin::pin;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use gantry_client::{Client, Image, PullOptions};
use gantry_core::wire_names::DEFAULT_HOSTS_DIR;
use gantry_core::{Error, ErrorKind};
use gantry_oci::{PlatformMatcher, Reference};
use gantry_registry::credentials::{FirstOf, ForHost};
use gantry_registry::proxy::ProxySettings;
use gantry_registry::{CredentialSource, Credentials, DockerConfig, HostsOptions, RegistryOptions};

use crate::failure::{Advise as _, Failure, Result};
use crate::foreground::interrupted;
use crate::progress::{Board, DRAW_EVERY, Lines};
use crate::signals::{Signals, asks_to_end};

/// How registries are asked.
#[derive(Args)]
pub(crate) struct RegistryFlags {
    /// Directories that hold REGISTRY/hosts.toml, separated by colons
    #[arg(long, default_value = DEFAULT_HOSTS_DIR, value_name = "DIR")]
    hosts_dir: String,
    /// Ask the registry in plain HTTP
    #[arg(long)]
    plain_http: bool,
    /// Do not check the registry's certificate
    #[arg(long, short = 'k')]
    skip_verify: bool,
    /// The platform of the image, for example linux/arm64; this host's by default
    #[arg(long, value_parser = platform)]
    platform: Option<PlatformMatcher>,
    /// The snapshotter; the namespace's default if absent
    #[arg(long, env = "CONTAINERD_SNAPSHOTTER", value_name = "NAME")]
    snapshotter: Option<String>,
}

/// Reads `linux/arm64`.
fn platform(text: &str) -> Result<PlatformMatcher, String> {
    gantry_oci::platforms::parse(text).map(PlatformMatcher::only).map_err(|error| error.to_string())
}

/// When `run` fetches an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// If it is not there.
    Missing,
    /// Even if it is there.
    Always,
    /// Not even if it is missing.
    Never,
}

/// What is pulled, and how.
pub(crate) struct Pulling<'a> {
    pub(crate) client: &'a Client,
    pub(crate) registry: &'a RegistryFlags,
    pub(crate) user: Option<Credentials>,
    pub(crate) unpack: bool,
    pub(crate) lines: Lines,
}

impl RegistryFlags {
    /// The platform that images are used for.
    pub(crate) fn platform(&self) -> PlatformMatcher {
        self.platform.clone().unwrap_or_else(PlatformMatcher::host)
    }

    /// The snapshotter that was named.
    pub(crate) fn snapshotter(&self) -> Option<&str> {
        self.snapshotter.as_deref()
    }

    fn options(&self, reference: &Reference, user: Option<Credentials>) -> RegistryOptions {
        let mut hosts = HostsOptions::with_dirs(&self.hosts_dir);
        hosts.plain_http = self.plain_http;
        hosts.tls.skip_verify = self.skip_verify.then_some(true);
        let mut sources: Vec<Arc<dyn CredentialSource>> = Vec::new();
        if let Some(user) = user {
            sources.push(Arc::new(ForHost::new(reference.host(), user)));
        }
        if let Some(config) = DockerConfig::of_user() {
            sources.push(Arc::new(config));
        }
        RegistryOptions {
            hosts,
            credentials: Arc::new(FirstOf(sources)),
            proxy: ProxySettings::from_environment(),
            ..RegistryOptions::default()
        }
    }
}

/// What a person wrote, as a reference.
///
/// # Errors
/// With advice on how to write one.
pub(crate) fn reference(text: &str) -> Result<Reference> {
    Reference::parse(text).advise(ErrorKind::InvalidArgument, || {
        "an image is named NAME[:TAG], HOST/NAME[:TAG] or HOST/NAME@DIGEST, in small letters".to_owned()
    })
}

/// The image that `text` names: as it stands, or as the reference that it is short for.
///
/// # Errors
/// `NotFound` if there is none; those of asking.
pub(crate) async fn stored_image(client: &Client, text: &str) -> Result<Image> {
    let missing = match client.image(text).await {
        Err(error) if error.kind() == ErrorKind::NotFound => error,
        found => return Ok(found?),
    };
    match Reference::parse(text).map(|reference| reference.to_string()) {
        Ok(full) if full != text => Ok(client.image(&full).await?),
        _ => Err(missing.into()),
    }
}

impl Pulling<'_> {
    /// Fetches what `text` names and shows how it goes.
    ///
    /// # Errors
    /// Those of the pull, with advice; being interrupted, after what was half done was undone.
    pub(crate) async fn pull(&self, text: &str, signals: &mut Signals) -> Result<Image> {
        let reference = reference(text)?;
        let mut board = Board::new(self.lines, self.unpack);
        let options = PullOptions {
            platform: self.registry.platform(),
            snapshotter: self.registry.snapshotter.clone(),
            unpack: self.unpack,
            registry: self.registry.options(&reference, self.user.clone()),
            progress: Some(board.listener()),
            ..PullOptions::default()
        };
        let cancellation = options.cancellation.clone();
        let mut work = pin!(self.client.pull(&reference, options));
        let mut ticks = tokio::time::interval(DRAW_EVERY);
        let mut ended_by = None;
        let pulled = loop {
            tokio::select! {
                pulled = &mut work => break pulled,
                _ = ticks.tick() => board.draw(),
                signal = signals.next() => if asks_to_end(signal) {
                    ended_by = Some(signal);
                    cancellation.cancel();
                }
            }
        };
        board.finish();
        match (pulled, ended_by) {
            (Ok(image), _) => Ok(image),
            (Err(error), Some(signal)) if error.kind() == ErrorKind::Canceled => {
                Err(interrupted(&format!("pull {:?}", reference.to_string()), signal))
            }
            (Err(error), _) => Err(self.advise(error, &reference)),
        }
    }

    fn advise(&self, error: Error, reference: &Reference) -> Failure {
        let host = reference.host();
        let hint = match error.kind() {
            ErrorKind::NotFound => {
                format!("check name and tag; {host} does not have it, or not for this platform")
            }
            ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => {
                format!("log in with docker login {host}, or give a name and a secret on the command line")
            }
            ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => format!(
                "can {host} be reached from here? A mirror is named in {}/{host}/hosts.toml; a registry without TLS needs --plain-http",
                self.registry.hosts_dir
            ),
            ErrorKind::ResourceExhausted => "is there room on the daemon's disk?".to_owned(),
            _ => return error.into(),
        };
        Failure::from(error).hint(hint)
    }

    /// The image that `text` names, unpacked: as it is stored, or pulled as `policy` says.
    ///
    /// # Errors
    /// Those of looking, pulling and unpacking.
    pub(crate) async fn find(&self, text: &str, policy: PullPolicy, signals: &mut Signals) -> Result<Image> {
        if policy == PullPolicy::Always {
            return self.pull(text, signals).await;
        }
        let found = match stored_image(self.client, text).await {
            Ok(image) => self.unpacked(&image).await.map(|()| image),
            Err(failure) => Err(failure),
        };
        match found {
            Err(failure) if failure.kind() == ErrorKind::NotFound && policy == PullPolicy::Missing => {
                self.pull(text, signals).await
            }
            other => other.advise(ErrorKind::NotFound, || format!("gantry pull {text}")),
        }
    }

    async fn unpacked(&self, image: &Image) -> Result<()> {
        let snapshotter = self.client.snapshotter_name(self.registry.snapshotter()).await?;
        let platform = self.registry.platform();
        if !image.is_unpacked(&snapshotter, &platform).await? {
            image.unpack(&snapshotter, &platform).await?;
        }
        Ok(())
    }
}
