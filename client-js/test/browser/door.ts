/** A door before the server that keeps WebSockets out, as some networks do, and lets every other request through. */
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { once } from "node:events";

/** What becomes of a WebSocket: let in, answered 404, or never answered. */
export type Treatment = "pass" | "404" | "swallow";

const NOT_FOUND = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

export class Door {
  treatment: Treatment = "pass";
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(readonly behind: number) {
    this.#server = createServer((client) => this.#accept(client));
  }

  static async before(port: number): Promise<Door> {
    const door = new Door(port);
    door.#server.listen(0, "127.0.0.1");
    await once(door.#server, "listening");
    return door;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Cuts whatever goes through it now. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }

  #accept(client: Socket): void {
    this.#keep(client);
    client.once("data", (head) => {
      const [line = ""] = head.toString("latin1").split("\r\n");
      if (this.treatment === "pass" || !line.includes("/websocket")) this.#carry(client, head);
      else if (this.treatment === "404") client.end(NOT_FOUND);
    });
  }

  #carry(client: Socket, head: Buffer): void {
    const server = connect(this.behind, "127.0.0.1");
    this.#keep(server);
    // A door to nowhere is closed, as a port that nobody listens on would be.
    server.on("error", () => client.destroy());
    server.write(head);
    client.pipe(server);
    server.pipe(client);
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#sockets.delete(socket));
  }
}
