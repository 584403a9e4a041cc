package millstream.kpl;

import java.net.URI;
import millstream.Options;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.kinesis.producer.KinesisProducerConfiguration;

/** The library's own settings, but for those that lead it to an emulator. */
final class Configuration {
    private Configuration() {}

    static KinesisProducerConfiguration of(Options options) {
        URI endpoint = URI.create(options.text("kinesis"));
        return new KinesisProducerConfiguration()
                .setRegion("us-east-1")
                .setCredentialsProvider(
                        StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test")))
                .setKinesisEndpoint(endpoint.getHost())
                .setKinesisPort(endpoint.getPort())
                .setVerifyCertificate(false)
                .setMetricsLevel("none")
                .setLogLevel("warning")
                .setNativeExecutable("/usr/bin/kinesis_producer");
    }
}
