// In Iceberg's own package, because the reference server's parts are visible only there.
package org.apache.iceberg.rest;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.CatalogUtil;
import org.apache.iceberg.catalog.Catalog;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;

/**
 * Iceberg's reference REST catalog on the loopback interface: its own main class listens on every interface, which
 * would let the neighbours of a developer's machine write files there.
 *
 * <p>Argument: the port. Catalog properties come from the environment, as in the original: CATALOG_URI is `uri`,
 * CATALOG_S3_PATH__STYLE__ACCESS is `s3.path-style-access`.
 */
public final class LoopbackCatalogServer {
  private LoopbackCatalogServer() {}

  public static void main(String[] arguments) throws Exception {
    Map<String, String> properties = RCKUtils.environmentCatalogConfig();
    Catalog catalog = CatalogUtil.buildIcebergCatalog("rest", properties, new Configuration());
    RESTCatalogAdapter adapter =
        new RESTServerCatalogAdapter(new RESTCatalogServer.CatalogContext(catalog, properties));
    ServletContextHandler handler = new ServletContextHandler(ServletContextHandler.NO_SESSIONS);
    handler.addServlet(new ServletHolder(new RESTCatalogServlet(adapter)), "/*");

    int port = Integer.parseInt(arguments[0]);
    Server server = new Server(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
    server.setHandler(handler);
    server.start();
    server.join();
  }
}
