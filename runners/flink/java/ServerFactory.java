package org.apache.beam.sdk.fn.server;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import org.apache.beam.model.pipeline.v1.Endpoints.ApiServiceDescriptor;
import org.apache.beam.vendor.grpc.v1p60p1.io.grpc.BindableService;
import org.apache.beam.vendor.grpc.v1p60p1.io.grpc.Server;
import org.apache.beam.vendor.grpc.v1p60p1.io.grpc.ServerInterceptors;
import org.apache.beam.vendor.grpc.v1p60p1.io.grpc.netty.NettyServerBuilder;
import org.apache.beam.vendor.grpc.v1p60p1.io.netty.channel.EventLoopGroup;
import org.apache.beam.vendor.grpc.v1p60p1.io.netty.channel.epoll.Epoll;
import org.apache.beam.vendor.grpc.v1p60p1.io.netty.channel.epoll.EpollEventLoopGroup;
import org.apache.beam.vendor.grpc.v1p60p1.io.netty.channel.epoll.EpollServerDomainSocketChannel;
import org.apache.beam.vendor.grpc.v1p60p1.io.netty.channel.unix.DomainSocketAddress;
import org.apache.beam.vendor.grpc.v1p60p1.io.netty.util.concurrent.DefaultThreadFactory;

/**
 * Stands before Beam's class of the same name on the class path, and opens its servers on Unix sockets in a folder that only
 * the job's owner can enter.
 *
 * <p>Beam's own opens the ports that its workers use (control, data, state, logging, artifacts, provision) on every
 * interface, without authentication, and no option narrows that. The workers here are children of the TaskManager, on
 * its host.
 */
public abstract class ServerFactory {

  /** The environment variable that names the folder of the sockets; without it, one is made. */
  private static final String FOLDER = "BEAM_ZOO_SOCKETS";

  /** Hands out every file that this user can read, on request; the workers here have all that they need. */
  private static final String ARTIFACTS = "org.apache.beam.model.job_management.v1.ArtifactRetrievalService";

  private static final int KEEP_ALIVE_SECONDS = 20; // as often as workers may ping, as in Beam's class

  public static ServerFactory createDefault() {
    return new UnixSockets();
  }

  public static ServerFactory createWithUrlFactory(UrlFactory urls) {
    return new UnixSockets();
  }

  public static ServerFactory createWithPortSupplier(Supplier<Integer> ports) {
    return new UnixSockets();
  }

  public static ServerFactory createWithUrlFactoryAndPortSupplier(UrlFactory urls, Supplier<Integer> ports) {
    return new UnixSockets();
  }

  /** Starts a server on a socket of its own and writes its address into the descriptor. */
  public abstract Server allocateAddressAndCreate(
      List<BindableService> services, ApiServiceDescriptor.Builder descriptor) throws IOException;

  /** Starts a server at the address that the descriptor names. */
  public abstract Server create(List<BindableService> services, ApiServiceDescriptor descriptor)
      throws IOException;

  /** How a host and a port are written as a URL. */
  public interface UrlFactory {
    String createUrl(String host, int port);

    static UrlFactory createDefault() {
      return (host, port) -> host + ":" + port;
    }
  }

  private static final class UnixSockets extends ServerFactory {
    private static final AtomicInteger COUNT = new AtomicInteger();
    private static Path made;

    @Override
    public Server allocateAddressAndCreate(
        List<BindableService> services, ApiServiceDescriptor.Builder descriptor) throws IOException {
      Path socket = folder().resolve(Integer.toString(COUNT.getAndIncrement()));
      Server server = start(services, socket);
      descriptor.setUrl("unix://" + socket);
      return server;
    }

    @Override
    public Server create(List<BindableService> services, ApiServiceDescriptor descriptor) throws IOException {
      throw new IOException("the address of a server is not for others to choose: " + descriptor.getUrl());
    }

    private static synchronized Path folder() throws IOException {
      if (made == null) {
        String name = System.getenv(FOLDER);
        made = (name == null ? Files.createTempDirectory("beam-zoo-") : Paths.get(name)).toRealPath();
        made.toFile().deleteOnExit();
      }
      String mode = PosixFilePermissions.toString(Files.getPosixFilePermissions(made));
      if (!mode.equals("rwx------")) {
        throw new IOException(made + " is open to others (" + mode + "), and is to hold sockets of Beam's workers");
      }
      return made;
    }

    private static Server start(List<BindableService> services, Path socket) throws IOException {
      if (!Epoll.isAvailable()) {
        throw new IOException("Java cannot open Unix sockets here", Epoll.unavailabilityCause());
      }
      NettyServerBuilder builder =
          NettyServerBuilder.forAddress(new DomainSocketAddress(socket.toFile()))
              .channelType(EpollServerDomainSocketChannel.class)
              .bossEventLoopGroup(Threads.ALL)
              .workerEventLoopGroup(Threads.ALL)
              .maxInboundMessageSize(Integer.MAX_VALUE)
              .permitKeepAliveTime(KEEP_ALIVE_SECONDS, TimeUnit.SECONDS);
      for (BindableService service : services) {
        if (!service.bindService().getServiceDescriptor().getName().equals(ARTIFACTS)) {
          builder.addService(
              ServerInterceptors.intercept(service, GrpcContextHeaderAccessorProvider.interceptor()));
        }
      }
      return builder.build().start();
    }
  }

  /** Made when the first server is: where there is no epoll, making them fails. */
  private static final class Threads {
    static final EventLoopGroup ALL = new EpollEventLoopGroup(0, new DefaultThreadFactory("beam-workers", true));
  }
}
