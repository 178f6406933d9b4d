//! One of the two daemons, and the connections to it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use gantry_api::containerd::services as pb;
use gantry_testkit::{Daemon, DaemonOptions, Program};
use pb::containers::v1::containers_client::ContainersClient;
use pb::content::v1::content_client::ContentClient;
use pb::leases::v1::leases_client::LeasesClient;
use pb::tasks::v1::tasks_client::TasksClient;
use pb::version::v1::version_client::VersionClient;
use tonic::Request;
use tonic::transport::Channel;

use crate::Result;

/// How many clients there are at most.
pub(crate) const CLIENTS: usize = 16;
/// As large as messages may be, which the list of everything needs.
const MESSAGE_BYTES: usize = 16 << 20;

/// A daemon with a connection for each client.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) daemon: Daemon,
    channels: Vec<Channel>,
}

/// A call in a namespace, under a lease unless that is empty.
pub(crate) fn call<T>(namespace: &str, lease: &str, message: T) -> Result<Request<T>> {
    let mut request = Request::new(message);
    let value = |text: &str| text.parse().map_err(|_| format!("{text:?} is no header"));
    request.metadata_mut().insert("containerd-namespace", value(namespace)?);
    if !lease.is_empty() {
        request.metadata_mut().insert("containerd-lease", value(lease)?);
    }
    Ok(request)
}

macro_rules! clients {
    ($($name:ident: $client:ty;)*) => {
        $(pub(crate) fn $name(&self, client: usize) -> $client {
            let channel = self.channels[client % self.channels.len()].clone();
            <$client>::new(channel).max_decoding_message_size(MESSAGE_BYTES)
        })*
    };
}

impl Side {
    /// gantryd.
    pub(crate) fn ours() -> Result<Side> {
        Side::start("gantryd", Program::gantryd())
    }

    /// Debian's containerd.
    pub(crate) fn peer() -> Result<Side> {
        Side::start("containerd", Program::containerd())
    }

    fn start(name: &'static str, program: Program) -> Result<Side> {
        let daemon = DaemonOptions::new(program).log_level("info").start();
        let channels = connect(&daemon.address())?;
        Ok(Side { name, daemon, channels })
    }

    /// Stops the daemon, starts it again, and gives the time from there to its first answer.
    pub(crate) async fn restart(&mut self) -> Result<Duration> {
        self.daemon.stop();
        let begun = Instant::now();
        self.daemon.launch();
        loop {
            self.channels = connect(&self.daemon.address())?;
            if self.version(0).version(()).await.is_ok() {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > Duration::from_secs(60) {
                return Err(format!("{} does not answer:\n{}", self.name, self.daemon.log()));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The CPU time that the daemon has used so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        // Behind the program's name, in hundredths of a second, which is the kernel's unit for programs.
        // Source: proc_pid_stat(5), utime and stime.
        let path = format!("/proc/{}/stat", self.daemon.pid());
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    clients! {
        tasks: TasksClient<Channel>;
        containers: ContainersClient<Channel>;
        content: ContentClient<Channel>;
        leases: LeasesClient<Channel>;
        version: VersionClient<Channel>;
    }
}

fn connect(address: &Path) -> Result<Vec<Channel>> {
    (0..CLIENTS).map(|_| gantry_rpc::connect(address).map_err(|error| error.to_string())).collect()
}
