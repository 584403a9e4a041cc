package millstream.kcl;

import java.lang.reflect.Field;
import java.net.URI;
import java.time.Duration;
import millstream.Line;
import millstream.Options;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.awscore.client.builder.AwsAsyncClientBuilder;
import software.amazon.awssdk.awscore.client.builder.AwsClientBuilder;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.async.SdkAsyncHttpClient;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.coordinator.CoordinatorConfig;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.coordinator.WorkerStateChangeListener.WorkerState;
import software.amazon.kinesis.leases.LeaseManagementConfig;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/** The library's settings: those of a worker as people run it, at a pace that tests can wait for. */
final class Configuration {
    private Configuration() {}

    static Scheduler scheduler(Options options, Shards shards) throws ReflectiveOperationException {
        // What emulators speak on a plain port; the library itself would insist on HTTP/2.
        SdkAsyncHttpClient http = NettyNioAsyncHttpClient.builder()
                .protocol(Protocol.HTTP1_1)
                .maxConcurrency(200)
                .connectionTimeout(Duration.ofSeconds(10))
                .build();
        KinesisAsyncClient kinesis = client(KinesisAsyncClient.builder(), http, options.text("kinesis"));
        DynamoDbAsyncClient dynamodb = client(DynamoDbAsyncClient.builder(), http, options.text("dynamodb"));
        // It is asked for, and never called: there are no metrics.
        CloudWatchAsyncClient cloudwatch = client(CloudWatchAsyncClient.builder(), http, options.text("dynamodb"));

        String stream = options.text("stream");
        InitialPositionInStream start = InitialPositionInStream.valueOf(options.text("start", "TRIM_HORIZON"));
        ConfigsBuilder configs = new ConfigsBuilder(
                new SingleStreamTracker(stream, InitialPositionInStreamExtended.newInitialPosition(start)),
                options.text("application"),
                kinesis,
                dynamodb,
                cloudwatch,
                options.text("worker"),
                shards);

        CoordinatorConfig coordinator = configs.coordinatorConfig()
                .parentShardPollIntervalMillis(500)
                .shardConsumerDispatchPollIntervalMillis(250)
                .workerStateChangeListener(Configuration::tell);
        LeaseManagementConfig leases = configs.leaseManagementConfig()
                .failoverTimeMillis(options.number("failover", 3_000))
                .shardSyncIntervalMillis(1_000)
                .leasesRecoveryAuditorExecutionFrequencyMillis(1_000);
        // These have no setter.
        for (String interval : new String[] {"lease", "completedLease", "garbageLease"}) {
            Field field = field(leases.leaseCleanupConfig(), interval + "CleanupIntervalMillis");
            field.setLong(leases.leaseCleanupConfig(), 2_000);
        }
        three(coordinator, leases, options);

        PollingConfig polling = new PollingConfig(stream, kinesis)
                .idleTimeBetweenReadsInMillis(250)
                .dataFetcherProvider(shard -> new ChildFillingFetcher(kinesis, shard));
        return new Scheduler(
                configs.checkpointConfig(),
                coordinator,
                leases,
                configs.lifecycleConfig().taskBackoffTimeMillis(200),
                configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
                configs.processorConfig(),
                configs.retrievalConfig().retrievalSpecificConfig(polling));
    }

    private static <B extends AwsClientBuilder<B, C> & AwsAsyncClientBuilder<B, C>, C> C client(
            B builder, SdkAsyncHttpClient http, String endpoint) {
        return builder.httpClient(http)
                .region(Region.US_EAST_1)
                .credentialsProvider(StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test")))
                .endpointOverride(URI.create(endpoint))
                .build();
    }

    /** What only version 3 of the library has, and the other must not be compiled with. */
    private static void three(CoordinatorConfig coordinator, LeaseManagementConfig leases, Options options)
            throws ReflectiveOperationException {
        Class<?> versions;
        try {
            versions = Class.forName(CoordinatorConfig.class.getName() + "$ClientVersionConfig");
        } catch (ClassNotFoundException two) {
            return;
        }
        String version = "CLIENT_VERSION_CONFIG_" + options.text("version", "COMPATIBLE_WITH_2X_PHASE1");
        for (Object each : versions.getEnumConstants()) {
            if (each.toString().equals(version)) {
                CoordinatorConfig.class.getMethod("clientVersionConfig", versions).invoke(coordinator, each);
            }
        }
        // They want to know of the machine's processors, which a container does not always report.
        Object utilization = LeaseManagementConfig.class
                .getMethod("workerUtilizationAwareAssignmentConfig")
                .invoke(leases);
        utilization.getClass().getMethod("disableWorkerMetrics", boolean.class).invoke(utilization, true);
    }

    private static Field field(Object of, String name) throws NoSuchFieldException {
        Field field = of.getClass().getDeclaredField(name);
        field.setAccessible(true);
        return field;
    }

    private static void tell(WorkerState state) {
        switch (state) {
            case STARTED -> Line.of("started").print();
            case SHUT_DOWN -> Line.of("shutDown").print();
            default -> {}
        }
    }
}
