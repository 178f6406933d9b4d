//! The kinds of plugins.

use std::fmt;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $text:literal;)*) => {
        /// What a plugin is. Its text is published: clients and configuration files name plugins by `kind.id`.
        ///
        /// Source: features section A.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum PluginKind {
            $($(#[$doc])* $name,)*
        }

        impl PluginKind {
            /// The published text, for example `io.containerd.service.v1`.
            pub fn as_str(self) -> &'static str {
                match self { $(PluginKind::$name => $text,)* }
            }

            /// The kind with this text.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(PluginKind::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// Blobs on disk.
    Content => "io.containerd.content.v1";
    /// Says whether an image may be used.
    ImageVerifier => "io.containerd.image-verifier.v1";
    /// Parts that only the daemon itself uses.
    Internal => "io.containerd.internal.v1";
    /// Collects warnings about what will go away.
    Warning => "io.containerd.warning.v1";
    /// The exchange of events.
    Event => "io.containerd.event.v1";
    /// Makes snapshots.
    Snapshotter => "io.containerd.snapshotter.v1";
    /// Watches tasks.
    TaskMonitor => "io.containerd.monitor.task.v1";
    /// Watches containers.
    ContainerMonitor => "io.containerd.monitor.container.v1";
    /// The namespaced, transactional store.
    Metadata => "io.containerd.metadata.v1";
    /// Runs garbage collection.
    Gc => "io.containerd.gc.v1";
    /// A listening server.
    Server => "io.containerd.server.v1";
    /// Mounts of special types.
    MountHandler => "io.containerd.mount-handler.v1";
    /// Active mounts.
    MountManager => "io.containerd.mount-manager.v1";
    /// Turns layers into changes and back.
    Differ => "io.containerd.differ.v1";
    /// The behaviour behind an API.
    Service => "io.containerd.service.v1";
    /// Shims.
    Shim => "io.containerd.shim.v1";
    /// Runs tasks.
    Runtime => "io.containerd.runtime.v2";
    /// A gRPC API.
    Grpc => "io.containerd.grpc.v1";
    /// A ttrpc API.
    Ttrpc => "io.containerd.ttrpc.v1";
    /// Leases.
    Lease => "io.containerd.lease.v1";
    /// Sandbox records.
    SandboxStore => "io.containerd.sandbox.store.v1";
    /// Runs sandboxes that are pods with a container of their own.
    PodSandboxController => "io.containerd.podsandbox.controller.v1";
    /// Runs sandboxes.
    SandboxController => "io.containerd.sandbox.controller.v1";
    /// Moves images.
    Transfer => "io.containerd.transfer.v1";
    /// Byte streams between clients and the daemon.
    Streaming => "io.containerd.streaming.v1";
}

impl fmt::Display for PluginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
