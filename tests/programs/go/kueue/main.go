// Kueue's queues, scheduler and integration of Jobs, as its own manager assembles them, without the webhooks and the
// frameworks of others: those double the packages to build. Without webhooks Kueue suspends a Job when it first sees it.
package main

import (
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	configapi "sigs.k8s.io/kueue/apis/config/v1beta2"
	kueue "sigs.k8s.io/kueue/apis/kueue/v1beta2"
	qcache "sigs.k8s.io/kueue/pkg/cache/queue"
	schdcache "sigs.k8s.io/kueue/pkg/cache/scheduler"
	"sigs.k8s.io/kueue/pkg/constants"
	"sigs.k8s.io/kueue/pkg/controller/core"
	"sigs.k8s.io/kueue/pkg/controller/core/indexer"
	"sigs.k8s.io/kueue/pkg/controller/jobframework"
	"sigs.k8s.io/kueue/pkg/controller/jobs/job"
	"sigs.k8s.io/kueue/pkg/scheduler"
	preemptexpectations "sigs.k8s.io/kueue/pkg/scheduler/preemption/expectations"
)

func main() {
	ctrl.SetLogger(zap.New())
	if err := run(); err != nil {
		ctrl.Log.Error(err, "Kueue has ended")
		os.Exit(1)
	}
}

func run() error {
	ctx := ctrl.SetupSignalHandler()
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(kueue.AddToScheme(scheme))
	utilruntime.Must(configapi.AddToScheme(scheme))
	configuration := &configapi.Configuration{}
	scheme.Default(configuration)

	connection, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(connection, ctrl.Options{
		Scheme:  scheme,
		Metrics: metricsserver.Options{BindAddress: "0"},
	})
	if err != nil {
		return err
	}
	if err := indexer.Setup(ctx, manager.GetFieldIndexer()); err != nil {
		return err
	}
	if err := job.SetupIndexes(ctx, manager.GetFieldIndexer()); err != nil {
		return err
	}

	requeuer := qcache.NewRequeuer()
	if err := manager.Add(requeuer); err != nil {
		return err
	}
	client, preemptions := manager.GetClient(), preemptexpectations.New()
	cache := schdcache.New(client)
	queues := qcache.NewManager(client, cache, requeuer, qcache.WithPreemptionExpectations(preemptions))
	go queues.CleanUpOnContext(ctx)
	go cache.CleanUpOnContext(ctx)
	if _, err := core.SetupControllers(manager, queues, cache, configuration, nil, preemptions, nil); err != nil {
		return err
	}

	jobs, err := job.NewReconciler(ctx, client, manager.GetFieldIndexer(),
		manager.GetEventRecorderFor(constants.JobControllerName),
		jobframework.WithManagerName(constants.KueueName), jobframework.WithCache(cache), jobframework.WithQueues(queues))
	if err != nil {
		return err
	}
	if err := jobs.SetupWithManager(manager); err != nil {
		return err
	}
	jobframework.EnableIntegration(job.FrameworkName)

	err = manager.Add(scheduler.New(queues, cache, client, manager.GetEventRecorderFor(constants.AdmissionName),
		scheduler.WithPreemptionExpectations(preemptions)))
	if err != nil {
		return err
	}
	return manager.Start(ctx)
}
