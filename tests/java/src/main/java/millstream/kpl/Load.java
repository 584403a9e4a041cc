package millstream.kpl;

import com.google.common.util.concurrent.FutureCallback;
import com.google.common.util.concurrent.Futures;
import com.google.common.util.concurrent.ListenableFuture;
import com.google.common.util.concurrent.MoreExecutors;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Stream;
import millstream.Line;
import millstream.Options;
import software.amazon.kinesis.producer.KinesisProducer;
import software.amazon.kinesis.producer.UserRecordResult;

/**
 * Sends records of {@code --bytes} to {@code --stream} by the Kinesis Producer Library, at most
 * {@code --outstanding} of them at a time without a response, and returns how many were stored within
 * {@code --counted} milliseconds. Before them come {@code --uncounted} ones, from when the library begins
 * to aggregate. The keys are the lines of standard input, in turn.
 */
public final class Load {
    private final KinesisProducer producer;
    private final String stream;
    private final List<String> keys;
    private final int bytes;
    private final long outstanding;
    private final AtomicLong stored = new AtomicLong();
    private long sent;

    private Load(Options options, List<String> keys) {
        producer = new KinesisProducer(Configuration.of(options).setRateLimit(options.number("rate", 150)));
        stream = options.text("stream");
        this.keys = keys;
        bytes = Math.toIntExact(options.number("bytes", 100));
        outstanding = options.number("outstanding", 10_000);
    }

    public static void main(String[] args) throws Exception {
        Options options = new Options(args);
        List<String> keys = new BufferedReader(new InputStreamReader(System.in)).lines().toList();
        Load load = new Load(options, keys);
        load.awaitAggregation();
        load.sendFor(Duration.ofMillis(options.number("uncounted", 0)));
        Sample before = load.sample();
        load.sendFor(Duration.ofMillis(options.number("counted", 1_000)));
        Sample after = load.sample();
        load.producer.flushSync();
        load.producer.destroy();
        Line.of("counted")
                .with("records", after.stored - before.stored)
                .with("nanos", after.nanos - before.nanos)
                .with("processor", after.processor - before.processor)
                .print();
        Runtime.getRuntime().halt(0);
    }

    /** The library asks for the shards at the first record, and aggregates nothing until it knows them. */
    private void awaitAggregation() throws InterruptedException, ExecutionException {
        ListenableFuture<UserRecordResult> one;
        ListenableFuture<UserRecordResult> other;
        do {
            one = send(keys.get(0));
            other = send(keys.get(0));
        } while (!one.get().getSequenceNumber().equals(other.get().getSequenceNumber()));
    }

    private void sendFor(Duration time) throws InterruptedException {
        long begun = System.nanoTime();
        while (System.nanoTime() - begun < time.toNanos()) {
            // So do Amazon's examples, for lack of anything to wait for.
            if (producer.getOutstandingRecordsCount() >= outstanding) {
                Thread.sleep(1);
                continue;
            }
            Futures.addCallback(
                    send(keys.get(Math.toIntExact(sent % keys.size()))),
                    new FutureCallback<>() {
                        @Override
                        public void onSuccess(UserRecordResult result) {
                            stored.incrementAndGet();
                        }

                        @Override
                        public void onFailure(Throwable cause) {
                            System.err.println("a record is not stored: " + Failure.why(cause));
                            Runtime.getRuntime().halt(1);
                        }
                    },
                    MoreExecutors.directExecutor());
        }
    }

    private ListenableFuture<UserRecordResult> send(String key) {
        byte[] payload = new byte[bytes];
        Arrays.fill(payload, (byte) 'x');
        ByteBuffer.wrap(payload).putLong(sent++);
        return producer.addUserRecord(stream, key, ByteBuffer.wrap(payload));
    }

    private record Sample(long stored, long nanos, long processor) {}

    private Sample sample() {
        // The program that the library sends by is a child of this one.
        ProcessHandle self = ProcessHandle.current();
        long processor = Stream.concat(Stream.of(self), self.descendants())
                .flatMap(process -> process.info().totalCpuDuration().stream())
                .mapToLong(Duration::toNanos)
                .sum();
        return new Sample(stored.get(), System.nanoTime(), processor);
    }
}
