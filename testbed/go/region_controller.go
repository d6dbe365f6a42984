package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// provisioner is the name a StorageClass has to give to get its volumes from here.
const provisioner = "saatkond.io/local-path"

// regionController does for a one-node region what a cloud or an add-on does for
// a cluster: volumes (folders on the node), load balancer addresses (the node's)
// and NetworkPolicies (nftables).
//
// It looks at the whole region each time something changed. A region holds a few
// dozen objects, so that is cheap, and there is no per-object state to go stale.
type regionController struct {
	client      kubernetes.Interface
	nodeAddress string
	volumes     string

	claims     corelisters.PersistentVolumeClaimLister
	pvs        corelisters.PersistentVolumeLister
	classes    storagelisters.StorageClassLister
	services   corelisters.ServiceLister
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	policies   networkinglisters.NetworkPolicyLister

	enforced string // the ruleset that the kernel has now
}

func newRegionControllerCommand() *cobra.Command {
	var kubeconfig, nodeAddress, volumes string
	command := &cobra.Command{
		Use:          "region-controller",
		Short:        "Volumes, load balancer addresses and NetworkPolicies of a testbed region",
		SilenceUsage: true,
		RunE: func(_ *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			return runRegionController(ctx, kubeconfig, nodeAddress, volumes)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig of the region")
	command.Flags().StringVar(&nodeAddress, "node-address", "", "address given to Services of type LoadBalancer")
	command.Flags().StringVar(&volumes, "volumes", "", "folder that holds the volumes")
	return command
}

func runRegionController(ctx context.Context, kubeconfig, nodeAddress, volumes string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	config.QPS, config.Burst = 200, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	core, networking, storage := factory.Core().V1(), factory.Networking().V1(), factory.Storage().V1()
	c := &regionController{
		client: client, nodeAddress: nodeAddress, volumes: volumes,
		claims:     core.PersistentVolumeClaims().Lister(),
		pvs:        core.PersistentVolumes().Lister(),
		classes:    storage.StorageClasses().Lister(),
		services:   core.Services().Lister(),
		pods:       core.Pods().Lister(),
		namespaces: core.Namespaces().Lister(),
		policies:   networking.NetworkPolicies().Lister(),
	}
	changed := make(chan struct{}, 1)
	note := func() {
		select {
		case changed <- struct{}{}:
		default: // a look is due already, and it will see this change too
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { note() },
		UpdateFunc: func(any, any) { note() },
		DeleteFunc: func(any) { note() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		core.PersistentVolumeClaims().Informer(), core.PersistentVolumes().Informer(),
		storage.StorageClasses().Informer(), core.Services().Informer(), core.Pods().Informer(),
		core.Namespaces().Informer(), networking.NetworkPolicies().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	klog.InfoS("watching", "nodeAddress", nodeAddress, "volumes", volumes)
	for {
		retry := time.Minute
		if err := c.reconcile(ctx); err != nil {
			klog.ErrorS(err, "will look again")
			retry = time.Second
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(retry):
		}
	}
}

func (c *regionController) reconcile(ctx context.Context) error {
	return errors.Join(c.provision(ctx), c.reclaim(ctx), c.addresses(ctx), c.enforce(ctx))
}

// provision makes a folder and a PersistentVolume for each claim of our classes.
func (c *regionController) provision(ctx context.Context) error {
	claims, err := c.claims.List(labels.Everything())
	if err != nil {
		return err
	}
	var failed []error
	for _, claim := range claims {
		if claim.Spec.VolumeName != "" || claim.Spec.StorageClassName == nil || claim.DeletionTimestamp != nil {
			continue
		}
		class, err := c.classes.Get(*claim.Spec.StorageClassName)
		if err != nil || class.Provisioner != provisioner {
			continue
		}
		node := claim.Annotations["volume.kubernetes.io/selected-node"]
		if class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer && node == "" {
			continue
		}
		if claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock {
			continue // folders cannot be block devices; the claim stays Pending, as with local-path
		}
		if err := c.provisionOne(ctx, claim, class, node); err != nil {
			failed = append(failed, fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err))
		}
	}
	return errors.Join(failed...)
}

func (c *regionController) provisionOne(ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node string) error {
	name := "pvc-" + string(claim.UID)
	if _, err := c.pvs.Get(name); err == nil {
		return nil // made already, the volume controller has not bound it yet
	}
	folder := filepath.Join(c.volumes, name)
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	// Pods run as any user; a folder has no fsGroup handling. As local-path does. Not by MkdirAll: the umask applies there.
	if err := os.Chmod(folder, 0o777); err != nil {
		return err
	}
	reclaim := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	kind := corev1.HostPathDirectory
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisioner},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: reclaim,
			StorageClassName:              class.Name,
			VolumeMode:                    claim.Spec.VolumeMode,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: folder, Type: &kind}},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
		},
	}
	if node != "" {
		volume.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}}}
	}
	_, err := c.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err == nil {
		klog.InfoS("provisioned", "claim", klog.KObj(claim), "volume", name)
	}
	return err
}

// reclaim removes the folder and the volume of claims that are gone.
func (c *regionController) reclaim(ctx context.Context) error {
	volumes, err := c.pvs.List(labels.Everything())
	if err != nil {
		return err
	}
	var failed []error
	for _, volume := range volumes {
		if volume.Annotations["pv.kubernetes.io/provisioned-by"] != provisioner ||
			volume.Status.Phase != corev1.VolumeReleased ||
			volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
			continue
		}
		// By name, never by what the object's path says: the path can be edited.
		if err := os.RemoveAll(filepath.Join(c.volumes, filepath.Base(volume.Name))); err != nil {
			failed = append(failed, err)
			continue
		}
		err := c.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// addresses gives every Service of type LoadBalancer the node's address, and takes it back from the others.
func (c *regionController) addresses(ctx context.Context) error {
	services, err := c.services.List(labels.Everything())
	if err != nil {
		return err
	}
	var failed []error
	for _, service := range services {
		var want []corev1.LoadBalancerIngress
		if service.Spec.Type == corev1.ServiceTypeLoadBalancer {
			if service.Spec.LoadBalancerClass != nil || service.DeletionTimestamp != nil {
				continue // somebody else's
			}
			want = []corev1.LoadBalancerIngress{{IP: c.nodeAddress}}
		}
		have := service.Status.LoadBalancer.Ingress
		if len(have) == len(want) && (len(want) == 0 || have[0].IP == want[0].IP) {
			continue
		}
		updated := service.DeepCopy()
		updated.Status.LoadBalancer.Ingress = want
		_, err := c.client.CoreV1().Services(service.Namespace).UpdateStatus(ctx, updated, metav1.UpdateOptions{})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// enforce puts the NetworkPolicies into the kernel, all at once, when they or the pods they speak of changed.
func (c *regionController) enforce(ctx context.Context) error {
	pods, err := c.pods.List(labels.Everything())
	if err != nil {
		return err
	}
	namespaces, err := c.namespaces.List(labels.Everything())
	if err != nil {
		return err
	}
	policies, err := c.policies.List(labels.Everything())
	if err != nil {
		return err
	}
	rules, err := policyRules(pods, namespaces, policies)
	if err != nil {
		return err
	}
	if rules == c.enforced {
		return nil
	}
	command := exec.CommandContext(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(rules)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s\n%s", err, out, rules)
	}
	c.enforced = rules
	return nil
}
