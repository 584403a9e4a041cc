package millstream.kcl;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import millstream.Options;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.ShardRecordProcessorFactory;

/** The shards of a worker, while it has their leases. */
final class Shards implements ShardRecordProcessorFactory {
    private final Options options;
    private final Set<Shard> held = ConcurrentHashMap.newKeySet();

    Shards(Options options) {
        this.options = options;
    }

    @Override
    public ShardRecordProcessor shardRecordProcessor() {
        return new Shard(options, held);
    }

    void checkpoint() {
        held.forEach(Shard::checkpoint);
    }
}
