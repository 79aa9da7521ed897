import java.lang.reflect.Field;

/** Runs DynamoDB Local on loopback only, which it has no option for, until standard input ends: it ends with its parent. */
class Loopback {
  public static void main(String[] args) throws Exception {
    Thread follow = new Thread(() -> {
      try {
        while (System.in.read() >= 0) {}
      } catch (java.io.IOException gone) {
      }
      Runtime.getRuntime().halt(0);
    });
    follow.setDaemon(true);
    follow.start();
    Class<?> runner = Class.forName("software.amazon.dynamodb.services.local.main.ServerRunner");
    Object server = runner.getMethod("createServerFromCommandLineArgs", String[].class).invoke(null, (Object) args);
    Field inner = server.getClass().getDeclaredField("server");
    inner.setAccessible(true);
    Object jetty = inner.get(server);
    for (Object connector : (Object[]) jetty.getClass().getMethod("getConnectors").invoke(jetty)) {
      connector.getClass().getMethod("setHost", String.class).invoke(connector, "127.0.0.1");
    }
    server.getClass().getMethod("start").invoke(server);
    server.getClass().getMethod("join").invoke(server);
  }
}
