package millstream.kpl;

import com.google.common.util.concurrent.ListenableFuture;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutionException;
import millstream.Line;
import millstream.Options;
import software.amazon.kinesis.producer.KinesisProducer;
import software.amazon.kinesis.producer.UserRecordResult;

/**
 * Sends {@code --count} records to {@code --stream} by the Kinesis Producer Library, over {@code --keys}
 * keys in turn, and prints the position of each. The record {@code n} has the key {@code key-<n mod keys>} and the
 * payload {@code record-<n>}; each third one goes by the explicit hash key {@code --hash-key}.
 */
public final class Produce {
    /** The library asks for the shards at the first record, and aggregates nothing until it knows them. */
    private static final long UNTIL_SHARDS_ARE_KNOWN = 2_000;

    private Produce() {}

    public static void main(String[] args) throws Exception {
        Options options = new Options(args);
        KinesisProducer producer = new KinesisProducer(
                Configuration.of(options).setRecordMaxBufferedTime(options.number("linger", 500)));

        String stream = options.text("stream");
        long count = options.number("count", 1);
        long keys = options.number("keys", 1);
        String hashKey = options.text("hash-key");
        List<ListenableFuture<UserRecordResult>> sent = new ArrayList<>();
        for (long n = 0; n < count; n++) {
            if (n == 1) {
                sent.get(0).get();
                Thread.sleep(UNTIL_SHARDS_ARE_KNOWN);
            }
            byte[] payload = ("record-" + n).getBytes(StandardCharsets.UTF_8);
            String explicit = n % 3 == 0 ? hashKey : null;
            sent.add(producer.addUserRecord(stream, "key-" + n % keys, explicit, ByteBuffer.wrap(payload)));
        }
        producer.flush();
        for (int n = 0; n < sent.size(); n++) {
            Line line = Line.of("sent").with("n", n);
            try {
                UserRecordResult result = sent.get(n).get();
                line.with("shard", result.getShardId()).with("seq", result.getSequenceNumber());
            } catch (ExecutionException failed) {
                line.with("why", Failure.why(failed.getCause()));
            }
            line.print();
        }
        producer.destroy();
        Runtime.getRuntime().halt(0);
    }
}
