/** Starts Trino of the version that is given; `-Dconfig=` names its configuration. Java runs this file as it is. */
public class StartTrino {
    public static void main(String[] arguments) {
        new io.trino.server.Server().start(arguments[0]);
    }
}
