#!/usr/bin/env bash
# Every Java program of the image: the class named first, or the tool by whose name this is called.
# The variables mean what they mean in the official image; only the defaults are for a small machine.
set -euo pipefail
tools=org.apache.kafka.tools
case $(basename "$0") in
    kafka-acls.sh) class=$tools.AclCommand ;;
    kafka-broker-api-versions.sh) class=$tools.BrokerApiVersionsCommand ;;
    kafka-configs.sh) class=kafka.admin.ConfigCommand ;;
    kafka-console-consumer.sh) class=$tools.consumer.ConsoleConsumer ;;
    kafka-console-producer.sh) class=$tools.ConsoleProducer ;;
    kafka-consumer-groups.sh) class=$tools.consumer.group.ConsumerGroupCommand ;;
    kafka-consumer-perf-test.sh) class=$tools.ConsumerPerformance ;;
    kafka-delete-records.sh) class=$tools.DeleteRecordsCommand ;;
    kafka-dump-log.sh) class=kafka.tools.DumpLogSegments ;;
    kafka-get-offsets.sh) class=$tools.GetOffsetShell ;;
    kafka-groups.sh) class=$tools.GroupsCommand ;;
    kafka-leader-election.sh) class=$tools.LeaderElectionCommand ;;
    kafka-log-dirs.sh) class=$tools.LogDirsCommand ;;
    kafka-metadata-quorum.sh) class=$tools.MetadataQuorumCommand ;;
    kafka-producer-perf-test.sh) class=$tools.ProducerPerformance ;;
    kafka-reassign-partitions.sh) class=$tools.reassign.ReassignPartitionsCommand ;;
    kafka-storage.sh) class=kafka.tools.StorageTool ;;
    kafka-topics.sh) class=$tools.TopicCommand ;;
    kafka-transactions.sh) class=$tools.TransactionsCommand ;;
    kafka-verifiable-consumer.sh) class=$tools.VerifiableConsumer ;;
    kafka-verifiable-producer.sh) class=$tools.VerifiableProducer ;;
    *)
        class=$1
        shift
        ;;
esac

# The broker logs to stdout; a tool's stdout is its answer.
if [ "$class" = kafka.Kafka ]; then
    log=(-Dorg.slf4j.simpleLogger.logFile=System.out -Dorg.slf4j.simpleLogger.showDateTime=true)
else
    log=(-Dorg.slf4j.simpleLogger.defaultLogLevel=warn)
fi
# The JVM ignores a class-data archive whose class path is not, jar by jar, the one it was made with.
jars=$(printf '%s:' /opt/kafka/libs/*.jar)
archive=()
if [ -f /opt/kafka/kafka.jsa ]; then archive=(-XX:SharedArchiveFile=/opt/kafka/kafka.jsa); fi
# shellcheck disable=SC2086 # the variables hold several words
exec java "${log[@]}" "${archive[@]}" ${KAFKA_HEAP_OPTS--Xmx512m} \
    ${KAFKA_JVM_PERFORMANCE_OPTS--XX:+UseSerialGC -XX:TieredStopAtLevel=1} ${KAFKA_OPTS-} \
    -cp "$jars" "$class" "$@"
