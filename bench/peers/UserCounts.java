import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Locale;
import java.util.Properties;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;

/**
 * Kafka Streams: JSON in, one count a user in RocksDB, changelog on, one thread; all other settings are its defaults, and so
 * at_least_once, a record cache of 10 MB (none with -Duncached=true) and a commit every 30 s. With -Dexactly_once=true it is
 * exactly_once_v2, whose default is a commit every 100 ms.
 */
public final class UserCounts {
    private static final int EVERY = 500;
    // Written by the one stream thread, read when it has ended.
    private static volatile long count = 0;

    public static final class Event {
        public String event_id;
        public String user_id;
        public String video_id;
        public String event;
        public long at_ms;
        public Double watch_seconds;
        public Double duration_seconds;
    }

    public static void main(String[] arguments) {
        long events = Long.parseLong(arguments[3]);
        ObjectReader json = new ObjectMapper()
            .configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false)
            .readerFor(Event.class);
        Deserializer<Event> decode = (topic, data) -> {
            try {
                return json.readValue(data);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        };

        StreamsBuilder builder = new StreamsBuilder();
        var eventSerde = Serdes.serdeFrom((topic, event) -> new byte[0], decode);
        builder.stream("interactions", Consumed.with(Serdes.String(), eventSerde))
            .groupByKey(Grouped.with(Serdes.String(), eventSerde))
            .aggregate(() -> 0L, (user, event, sum) -> {
                tell(events);
                return sum + 1;
            }, Materialized.<String, Long, org.apache.kafka.streams.state.KeyValueStore<
                org.apache.kafka.common.utils.Bytes, byte[]>>as("counts")
                .withKeySerde(Serdes.String()).withValueSerde(Serdes.Long()));

        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[1]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[2]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        if (Boolean.getBoolean("uncached")) {
            settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        }
        if (Boolean.getBoolean("exactly_once")) {
            settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        }
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(Duration.ofSeconds(20));
            System.out.println("stopped " + count);
        }));
        streams.start();
    }

    private static void tell(long events) {
        long n = ++count;
        if (n % EVERY == 0 || n == events) {
            System.out.printf(Locale.ROOT, "progress %.6f %d%n", System.nanoTime() / 1e9, n);
        }
    }
}
