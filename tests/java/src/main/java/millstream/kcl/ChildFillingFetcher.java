package millstream.kcl;

import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.Stream;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.model.ChildShard;
import software.amazon.awssdk.services.kinesis.model.GetRecordsRequest;
import software.amazon.awssdk.services.kinesis.model.GetRecordsResponse;
import software.amazon.kinesis.retrieval.DataFetcherProviderConfig;
import software.amazon.kinesis.retrieval.polling.KinesisDataFetcher;

/**
 * Reads like the library, and adds the child shards that an emulator omits at the end of a shard.
 * The library takes an end without children for an invalid response, and retries forever.
 */
final class ChildFillingFetcher extends KinesisDataFetcher {
    private final KinesisAsyncClient kinesis;
    private final DataFetcherProviderConfig config;

    ChildFillingFetcher(KinesisAsyncClient kinesis, DataFetcherProviderConfig config) {
        super(kinesis, config);
        this.kinesis = kinesis;
        this.config = config;
    }

    /** Does not call the one that it overrides, which is where the library looks at the response. */
    @Override
    public GetRecordsResponse getGetRecordsResponse(GetRecordsRequest request)
            throws ExecutionException, InterruptedException, TimeoutException {
        long timeout = config.getKinesisRequestTimeout().toMillis();
        GetRecordsResponse response = kinesis.getRecords(request).get(timeout, TimeUnit.MILLISECONDS);
        if (response.nextShardIterator() != null || !response.childShards().isEmpty()) {
            return response;
        }
        String parent = config.getShardId();
        String stream = config.getStreamIdentifier().streamName();
        List<ChildShard> children = kinesis.listShards(list -> list.streamName(stream))
                .get(timeout, TimeUnit.MILLISECONDS)
                .shards()
                .stream()
                .filter(shard -> parent.equals(shard.parentShardId()) || parent.equals(shard.adjacentParentShardId()))
                .map(shard -> ChildShard.builder()
                        .shardId(shard.shardId())
                        .parentShards(Stream.of(shard.parentShardId(), shard.adjacentParentShardId())
                                .filter(each -> each != null)
                                .toList())
                        .hashKeyRange(shard.hashKeyRange())
                        .build())
                .toList();
        return response.toBuilder().childShards(children).build();
    }
}
