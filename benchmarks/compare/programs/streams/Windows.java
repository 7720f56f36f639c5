import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.time.Duration;
import java.time.Instant;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Counts with Kafka Streams: count and sum of durations by agency, service and minute of the event, in tumbling windows
 * with its default state store (RocksDB with a changelog topic and a cache). JSON by Jackson, into the same fields that the
 * other sides decode. The key of a message is agency/service, so that no topic for regrouping is needed.
 *
 * Arguments: bootstrap, topic, events, threads. Tells its progress as progress.py says.
 */
public final class Windows {
    @JsonIgnoreProperties(ignoreUnknown = true)
    public static final class Data {
        public String agency, service, channel, outcome, user, application, centre, district, hosting, consumer, initiator;
        public String sign_in, stage;
        public double duration_ms;
        public int rating;
    }

    @JsonIgnoreProperties(ignoreUnknown = true)
    public static final class Event {
        public String specversion, id, source, type, time;
        public Data data;
    }

    private static final ObjectReader JSON = new ObjectMapper().readerFor(Event.class);

    private static Event decode(byte[] value) {
        try {
            return JSON.readValue(value);
        } catch (java.io.IOException error) {
            throw new IllegalArgumentException(error);
        }
    }

    private static byte[] add(byte[] total, Event event) {
        ByteBuffer before = ByteBuffer.wrap(total);
        return ByteBuffer.allocate(16).putLong(before.getLong() + 1).putDouble(before.getDouble() + event.data.duration_ms).array();
    }

    public static void main(String[] arguments) throws Exception {
        String name = "bench-streams-" + System.nanoTime();
        long expected = Long.parseLong(arguments[2]);
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, name);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments[3]);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, "1");
        settings.put(StreamsConfig.STATE_DIR_CONFIG, Files.createTempDirectory("xidmet-bench-").toString());
        settings.put("auto.offset.reset", "earliest");

        Serde<Event> events = Serdes.serdeFrom((topic, event) -> null, (topic, value) -> decode(value));
        LongAdder count = new LongAdder();
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(
                        arguments[1],
                        Consumed.with(Serdes.String(), events)
                                .withTimestampExtractor((record, partitionTime) ->
                                        Instant.parse(((Event) record.value()).time).toEpochMilli()))
                .groupByKey()
                .windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofMinutes(1)))
                .aggregate(
                        () -> new byte[16],
                        (key, event, total) -> {
                            count.increment();
                            return add(total, event);
                        },
                        Materialized.<String, byte[], WindowStore<Bytes, byte[]>>as("minutes")
                                .withKeySerde(Serdes.String())
                                .withValueSerde(Serdes.ByteArray()));
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        streams.start();
        while (count.sum() < expected) {
            Thread.sleep(100);
            tell(count.sum(), "");
        }
        Map<String, double[]> totals = new TreeMap<>();
        var store = streams.store(StoreQueryParameters.fromNameAndType("minutes", QueryableStoreTypes.<String, byte[]>windowStore()));
        try (var all = store.all()) {
            while (all.hasNext()) {
                var entry = all.next();
                ByteBuffer total = ByteBuffer.wrap(entry.value);
                double[] sum = totals.computeIfAbsent(entry.key.key(), key -> new double[2]);
                sum[0] += total.getLong();
                sum[1] += total.getDouble();
            }
        }
        StringBuilder text = new StringBuilder();
        totals.forEach((key, sum) -> text.append(text.length() > 0 ? "," : "")
                .append('"').append(key).append("\":[").append((long) sum[0]).append(',').append(sum[1]).append(']'));
        tell(count.sum(), ",\"totals\":{" + text + "}");
        streams.close(Duration.ofSeconds(20));
        System.exit(0);
    }

    private static void tell(long count, String more) {
        double now = System.currentTimeMillis() / 1000.0;
        System.out.println("{\"count\":" + count + ",\"at\":" + String.format(java.util.Locale.ROOT, "%.3f", now) + more + "}");
    }
}
