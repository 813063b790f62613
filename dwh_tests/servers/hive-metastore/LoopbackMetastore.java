import java.net.InetAddress;
import java.net.InetSocketAddress;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hive.metastore.HiveMetaStore.HMSHandler;
import org.apache.hadoop.hive.metastore.IHMSHandler;
import org.apache.hadoop.hive.metastore.RetryingHMSHandler;
import org.apache.hadoop.hive.metastore.TSetIpAddressProcessor;
import org.apache.hadoop.hive.metastore.conf.MetastoreConf;
import org.apache.hadoop.hive.metastore.txn.TxnDbUtil;
import org.apache.thrift.server.TThreadPoolServer;
import org.apache.thrift.transport.TServerSocket;

/**
 * The Hive metastore on the loopback interface: its own main class ignores the configured bind host and listens on
 * every interface. Argument: the port. Any property of the metastore may be given as a system property.
 */
public final class LoopbackMetastore {
  private LoopbackMetastore() {}

  public static void main(String[] arguments) throws Exception {
    Configuration configuration = MetastoreConf.newMetastoreConf();
    // HIVE_LOCKS and its kin, which the automatic schema leaves out: without them PyIceberg's commit, which takes
    // a lock, ends in a closed connection.
    TxnDbUtil.setConfValues(configuration);
    TxnDbUtil.prepDb(configuration);

    HMSHandler store = new HMSHandler("metastore", configuration, false);
    IHMSHandler handler = RetryingHMSHandler.getProxy(configuration, store, true);
    int port = Integer.parseInt(arguments[0]);
    TServerSocket socket = new TServerSocket(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
    new TThreadPoolServer(
            new TThreadPoolServer.Args(socket).processor(new TSetIpAddressProcessor<>(handler)))
        .serve();
  }
}
