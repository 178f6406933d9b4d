//! Pulls Debian and runs a container of it, from beginning to end.

use clap::Parser;
use gantry_client::{Client, ContainerOptions, DeleteContainer, FifoIo, IoRequest, PullOptions};
use gantry_core::{ContainerId, Namespace, Result};
use gantry_oci::{Reference, SpecOptions};

#[derive(Parser)]
struct Arguments {
    /// The daemon's socket.
    #[arg(long, default_value = "/run/containerd/containerd.sock")]
    address: String,
    /// Another registry, for example `127.0.0.1:5000`.
    #[arg(long, default_value = "docker.io")]
    registry: String,
    /// The image's tag.
    #[arg(long, default_value = "latest")]
    tag: String,
    /// Ask the registry in plain HTTP.
    #[arg(long)]
    plain_http: bool,
    /// Directories of `<registry>/hosts.toml`.
    #[arg(long, default_value = "/etc/containerd/certs.d")]
    hosts_dir: String,
    /// The snapshotter.
    #[arg(long, default_value = "overlayfs")]
    snapshotter: String,
}

#[tokio::main]
async fn main() {
    if let Err(error) = run(Arguments::parse()).await {
        eprintln!("debian_container: {error}");
        std::process::exit(1);
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let client = Client::connect(&arguments.address, Namespace::parse("builder")?).await?;
    println!("connected to {}, version {}", arguments.address, client.version().await?.version);

    let reference = format!("{}/library/debian:{}", arguments.registry, arguments.tag);
    let mut options = PullOptions {
        unpack: true,
        snapshotter: Some(arguments.snapshotter.clone()),
        ..PullOptions::default()
    };
    options.registry.hosts = gantry_registry::HostsOptions::with_dirs(&arguments.hosts_dir);
    options.registry.hosts.plain_http = arguments.plain_http;
    let image = client.pull(&Reference::parse(&reference)?, options).await?;
    println!("pulled {} {}", image.name(), image.digest());

    let options = ContainerOptions {
        image: Some(image),
        snapshotter: Some(arguments.snapshotter),
        snapshot_key: Some("debian_snapshot".to_owned()),
        spec: SpecOptions {
            command: ["sh", "-c", "echo hello from $(cat /etc/debian_version)"].map(str::to_owned).into(),
            ..SpecOptions::default()
        },
        ..ContainerOptions::default()
    };
    let container = client.new_container(ContainerId::parse("debian_container")?, options).await?;
    let result = run_task(&container).await;
    let deleted = container.delete(DeleteContainer { snapshot: true }).await;
    result.and(deleted)?;
    println!("deleted container {}", container.id());
    Ok(())
}

async fn run_task(container: &gantry_client::Container) -> Result<()> {
    let task = container.new_task(IoRequest::Fifos(FifoIo::inherit(false, false))).await?;
    let exit = async {
        task.start().await?;
        println!("started, process {}", task.pid());
        task.wait().await
    }
    .await;
    let deleted = task.delete().await;
    println!("exited with status {}", exit?.status);
    deleted.map(|_| ())
}
