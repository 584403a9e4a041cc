package millstream.kcl;

import java.nio.ByteBuffer;
import java.util.Set;
import millstream.Line;
import millstream.Options;
import software.amazon.kinesis.exceptions.InvalidStateException;
import software.amazon.kinesis.exceptions.ShutdownException;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.retrieval.KinesisClientRecord;

/**
 * Processes one lease of a shard, and reports each record and what becomes of the shard.
 *
 * <p>{@code --checkpoint batch} stores progress after each batch, {@code --checkpoint order} only on
 * command. {@code --inside n} stores it after the record {@code n} of the first aggregate that has one, and
 * handles nothing from there on, like a worker that dies in the middle of an aggregate.
 */
final class Shard implements ShardRecordProcessor {
    private final Set<Shard> held;
    private final boolean eachBatch;
    private final long inside;
    private final long slow;
    private boolean dead;
    private String shard;
    private KinesisClientRecord last;
    private RecordProcessorCheckpointer checkpointer;

    Shard(Options options, Set<Shard> held) {
        this.held = held;
        eachBatch = options.text("checkpoint", "batch").equals("batch");
        inside = options.number("inside", -1);
        slow = options.number("slow", 0);
    }

    @Override
    public void initialize(InitializationInput input) {
        shard = input.shardId();
        held.add(this);
        told("leaseTaken")
                .with("seq", input.extendedSequenceNumber().sequenceNumber())
                .with("sub", input.extendedSequenceNumber().subSequenceNumber())
                .print();
    }

    @Override
    public void processRecords(ProcessRecordsInput input) {
        synchronized (this) {
            checkpointer = input.checkpointer();
        }
        for (KinesisClientRecord record : input.records()) {
            if (dead) {
                return;
            }
            handle(record);
            if (record.aggregated() && record.subSequenceNumber() == inside) {
                dead = true;
                checkpoint();
                told("dead").print();
                return;
            }
        }
        if (eachBatch) {
            checkpoint();
        }
    }

    private void handle(KinesisClientRecord record) {
        ByteBuffer data = record.data().duplicate();
        byte[] payload = new byte[data.remaining()];
        data.get(payload);
        told("record")
                .with("seq", record.sequenceNumber())
                .with("sub", record.subSequenceNumber())
                .with("key", record.partitionKey())
                .with("payload", payload)
                .with("aggregated", record.aggregated())
                .with("explicitHashKey", record.explicitHashKey())
                .print();
        if (slow > 0) {
            try {
                Thread.sleep(slow);
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
        }
        synchronized (this) {
            last = record;
        }
    }

    /** The library skips a batch whose handling throws, so failures are reported instead. */
    synchronized void checkpoint() {
        if (last == null) {
            return;
        }
        try {
            checkpointer.checkpoint(last.sequenceNumber(), last.subSequenceNumber());
            told("checkpointed")
                    .with("seq", last.sequenceNumber())
                    .with("sub", last.subSequenceNumber())
                    .print();
        } catch (Exception refused) {
            told("checkpointRefused").with("why", refused.toString()).print();
        }
    }

    @Override
    public void leaseLost(LeaseLostInput input) {
        held.remove(this);
        // A lease may be lost before the library has said of which shard it is.
        if (shard != null) {
            told("leaseLost").print();
        }
    }

    @Override
    public void shardEnded(ShardEndedInput input) {
        try {
            input.checkpointer().checkpoint();
        } catch (InvalidStateException | ShutdownException again) {
            // The library returns to a shard whose end is not stored.
            throw new IllegalStateException(again);
        }
        held.remove(this);
        told("shardEnded").print();
    }

    @Override
    public void shutdownRequested(ShutdownRequestedInput input) {
        told("shutdownRequested").print();
        synchronized (this) {
            checkpointer = input.checkpointer();
        }
        if (!dead) {
            checkpoint();
        }
    }

    private Line told(String event) {
        return Line.of(event).with("shard", shard);
    }
}
