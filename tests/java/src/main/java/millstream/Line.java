package millstream;

import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.temporal.ChronoUnit;

/** A line on standard output: one event with its time, as a JSON object. */
public final class Line {
    private final StringBuilder text = new StringBuilder();

    private Line(String event) {
        text.append("{\"event\":");
        quote(event);
        with("at", ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now()));
    }

    public static Line of(String event) {
        return new Line(event);
    }

    public Line with(String name, String value) {
        name(name);
        if (value == null) {
            text.append("null");
        } else {
            quote(value);
        }
        return this;
    }

    public Line with(String name, long value) {
        name(name);
        text.append(value);
        return this;
    }

    public Line with(String name, boolean value) {
        name(name);
        text.append(value);
        return this;
    }

    /** Bytes, each as the character of its number. */
    public Line with(String name, byte[] value) {
        return with(name, new String(value, StandardCharsets.ISO_8859_1));
    }

    /** Many threads print, and a line must stay whole. */
    public void print() {
        text.append('}');
        synchronized (System.out) {
            System.out.println(text);
            System.out.flush();
        }
    }

    private void name(String name) {
        text.append(',');
        quote(name);
        text.append(':');
    }

    private void quote(String value) {
        text.append('"');
        for (char c : value.toCharArray()) {
            if (c == '"' || c == '\\') {
                text.append('\\').append(c);
            } else if (c < ' ' || c > '~') {
                text.append(String.format("\\u%04x", (int) c));
            } else {
                text.append(c);
            }
        }
        text.append('"');
    }
}
