package millstream.kcl;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.concurrent.TimeUnit;
import millstream.Line;
import millstream.Options;
import software.amazon.kinesis.coordinator.Scheduler;

/**
 * A consumer on the Kinesis Client Library, for tests. It reports events as lines of
 * JSON, and reads commands from standard input, one per line:
 *
 * <ul>
 *   <li>{@code checkpoint}: of every shard, all that was handled;
 *   <li>{@code stop}: end cleanly.
 * </ul>
 *
 * When standard input ends it exits at once, as in a crash: it must not outlive its test.
 */
public final class Worker {
    private Worker() {}

    public static void main(String[] args) throws Exception {
        Options options = new Options(args);
        Shards shards = new Shards(options);
        Scheduler scheduler = Configuration.scheduler(options, shards);
        Thread running = new Thread(scheduler, "scheduler");
        running.start();

        BufferedReader orders = new BufferedReader(new InputStreamReader(System.in));
        for (String order = orders.readLine(); order != null; order = orders.readLine()) {
            switch (order) {
                case "checkpoint" -> shards.checkpoint();
                case "stop" -> {
                    boolean good = scheduler.startGracefulShutdown().get(60, TimeUnit.SECONDS);
                    running.join(TimeUnit.SECONDS.toMillis(60));
                    Line.of("stopped").with("good", good).print();
                    Runtime.getRuntime().halt(0);
                }
                default -> throw new IllegalArgumentException("unknown order: " + order);
            }
        }
        Runtime.getRuntime().halt(1);
    }
}
