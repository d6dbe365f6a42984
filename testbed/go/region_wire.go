package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// newRegionWireCommand is a cable between two regions that holds every packet back for a while.
//
// Many kernels come without netem, so the delay is made here: a TUN device in each of two network namespaces,
// and a process that carries packets from one to the other. The caller routes the peer's address to the device;
// when this process ends, both devices go and with them the routes, and packets take the normal way again.
func newRegionWireCommand() *cobra.Command {
	var fromNamespace, toNamespace, fromDevice, toDevice string
	var delay time.Duration
	command := &cobra.Command{
		Use:          "region-wire",
		Short:        "A slow cable between two testbed regions",
		SilenceUsage: true,
		RunE: func(_ *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			from, err := openTun(fromNamespace, fromDevice)
			if err != nil {
				return err
			}
			to, err := openTun(toNamespace, toDevice)
			if err != nil {
				return err
			}
			ended := make(chan error, 4)
			carry(from, to, delay, ended)
			carry(to, from, delay, ended)
			select {
			case <-ctx.Done():
				return nil
			case err := <-ended:
				return err
			}
		},
	}
	command.Flags().StringVar(&fromNamespace, "from-netns", "", "file of the one network namespace")
	command.Flags().StringVar(&toNamespace, "to-netns", "", "file of the other")
	command.Flags().StringVar(&fromDevice, "from-device", "", "name of the device there")
	command.Flags().StringVar(&toDevice, "to-device", "", "name of the device in the other")
	command.Flags().DurationVar(&delay, "delay", 0, "how long each packet is held, each way")
	return command
}

// openTun makes a device in another network namespace. The thread that went there is never used again.
func openTun(namespace, device string) (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		file, err := openTunHere(namespace, device)
		done <- result{file, err}
	}()
	r := <-done
	return r.file, r.err
}

func openTunHere(namespace, device string) (*os.File, error) {
	ns, err := os.Open(namespace)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter %s: %w", namespace, err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(device)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, fmt.Errorf("device %s: %w", device, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // lets the runtime poll it
		return nil, err
	}
	return os.NewFile(uintptr(fd), device), nil
}

type held struct {
	packet []byte
	until  time.Time
}

// carry takes packets from one device to the other in order. The queue has a bound, as a cable has: when it is
// full, packets are lost, and TCP slows down.
func carry(from, to *os.File, delay time.Duration, ended chan<- error) {
	queue := make(chan held, 1<<16)
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			n, err := from.Read(buffer)
			if err != nil {
				ended <- fmt.Errorf("read %s: %w", from.Name(), err)
				return
			}
			select {
			case queue <- held{append([]byte(nil), buffer[:n]...), time.Now().Add(delay)}:
			default:
			}
		}
	}()
	go func() {
		for h := range queue {
			time.Sleep(time.Until(h.until)) // the delay itself, not a wait for something
			// A device that is not up yet (EIO) or full (EAGAIN) loses the packet, as a cable would.
			if _, err := to.Write(h.packet); err != nil && !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) {
				ended <- fmt.Errorf("write %s: %w", to.Name(), err)
				return
			}
		}
	}()
}
