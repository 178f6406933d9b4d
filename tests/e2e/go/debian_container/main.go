// Command debian_container does with the official Go client what examples/debian_container.rs does with
// ours: connect, choose a namespace, pull an image unpacked into a chosen snapshotter, make a container with
// a snapshot and a spec from the image's configuration, run it, and clean up. It ends with the status of
// the task.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
)

func main() {
	address := flag.String("address", "/run/containerd/containerd.sock", "socket of the daemon")
	ref := flag.String("ref", "docker.io/library/debian:latest", "image to pull")
	plainHTTP := flag.Bool("plain-http", false, "speak http to the registry")
	snapshotter := flag.String("snapshotter", "overlayfs", "snapshotter to unpack into")
	args := flag.String("args", "", "command to run instead of the image's, separated by spaces")
	flag.Parse()

	code, err := run(*address, *ref, *plainHTTP, *snapshotter, strings.Fields(*args))
	if err != nil {
		fmt.Fprintln(os.Stderr, "debian_container:", err)
		os.Exit(125)
	}
	os.Exit(int(code))
}

func run(address, ref string, plainHTTP bool, snapshotter string, args []string) (code uint32, err error) {
	client, err := containerd.New(address)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer client.Close()
	ctx := namespaces.WithNamespace(context.Background(), "builder")

	serving, err := client.IsServing(ctx)
	if err != nil || !serving {
		return 0, fmt.Errorf("the daemon does not serve: %w", err)
	}

	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(func(string) (bool, error) { return plainHTTP, nil })),
	})
	image, err := client.Pull(ctx, ref,
		containerd.WithResolver(resolver),
		containerd.WithPullUnpack,
		containerd.WithPullSnapshotter(snapshotter))
	if err != nil {
		return 0, fmt.Errorf("pull: %w", err)
	}
	fmt.Println("pulled", image.Name(), image.Target().Digest)

	opts := []oci.SpecOpts{oci.WithImageConfig(image)}
	if len(args) > 0 {
		opts = []oci.SpecOpts{oci.WithImageConfigArgs(image, args)}
	}
	container, err := client.NewContainer(ctx, "debian_container",
		containerd.WithImage(image),
		containerd.WithSnapshotter(snapshotter),
		containerd.WithNewSnapshot("debian_snapshot", image),
		containerd.WithNewSpec(opts...))
	if err != nil {
		return 0, fmt.Errorf("make the container: %w", err)
	}
	defer func() {
		err = errors.Join(err, container.Delete(ctx, containerd.WithSnapshotCleanup))
	}()

	task, err := container.NewTask(ctx, cio.NewCreator(cio.WithStdio))
	if err != nil {
		return 0, fmt.Errorf("make the task: %w", err)
	}
	defer func() {
		_, deleted := task.Delete(ctx, containerd.WithProcessKill)
		err = errors.Join(err, deleted)
	}()
	exited, err := task.Wait(ctx)
	if err != nil {
		return 0, fmt.Errorf("wait: %w", err)
	}
	if err := task.Start(ctx); err != nil {
		return 0, fmt.Errorf("start: %w", err)
	}
	status := <-exited
	code, _, err = status.Result()
	if err != nil {
		return 0, fmt.Errorf("the task's end: %w", err)
	}
	fmt.Println("exit status", code)
	return code, nil
}
