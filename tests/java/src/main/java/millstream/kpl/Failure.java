package millstream.kpl;

import software.amazon.kinesis.producer.UserRecordFailedException;

/** Why a record is not stored. */
final class Failure {
    private Failure() {}

    static String why(Throwable cause) {
        if (cause instanceof UserRecordFailedException failed) {
            return failed.getResult().getAttempts().stream()
                    .map(attempt -> attempt.getErrorCode() + ": " + attempt.getErrorMessage())
                    .toList()
                    .toString();
        }
        return cause.toString();
    }
}
