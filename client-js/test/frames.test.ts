/** What the client of Phoenix writes is what the server's vectors read, and what the vectors write it reads. */
import { readFileSync } from "node:fs";
import * as phoenix from "phoenix";
import { describe, expect, it } from "vitest";

interface Fields {
  readonly join_ref: unknown;
  readonly ref: unknown;
  readonly topic: unknown;
  readonly event: string;
  readonly payload: unknown;
}

/** The types of the package leave this out. */
const { Serializer } = phoenix as unknown as {
  Serializer: {
    encode(message: Partial<Fields>, callback: (frame: string | ArrayBuffer) => void): void;
    decode(frame: string | ArrayBuffer, callback: (message: Fields) => void): void;
  };
};

interface Vector {
  readonly kind?: "push" | "reply" | "broadcast";
  readonly join_ref?: string;
  readonly ref?: string;
  readonly topic: string | number | null;
  readonly event?: string;
  readonly status?: string;
  readonly payload?: string;
  readonly payload_hex?: string;
  readonly text?: string;
  readonly hex?: string;
}

interface Vectors {
  readonly decode: readonly Vector[];
  readonly encode: readonly Vector[];
  readonly too_long?: readonly Vector[];
}

function vectors(file: string): Vectors {
  const folder = new URL("../../protocol/vectors/frames/", import.meta.url);
  return JSON.parse(readFileSync(new URL(file, folder), "utf8")) as Vectors;
}

const bytes = (hex: string): ArrayBuffer => Uint8Array.from(Buffer.from(hex, "hex")).buffer;
const hex = (buffer: ArrayBuffer): string => Buffer.from(buffer).toString("hex");
const named = (list: readonly Vector[]): [string, Vector][] =>
  list.map((vector) => [(vector.text ?? vector.hex ?? vector.topic ?? "").toString().slice(0, 60), vector]);

/** A ref as this client has it: a text or none, and none is `undefined` where it goes into bytes. */
const ref = (json: string | undefined): string | number | null =>
  json === undefined ? null : (JSON.parse(json) as string | number | null);

function encode(vector: Vector, payload: unknown): string | ArrayBuffer {
  let frame: string | ArrayBuffer | undefined;
  const message = {
    join_ref: ref(vector.join_ref) ?? undefined,
    ref: ref(vector.ref) ?? undefined,
    topic: vector.topic,
    event: vector.event ?? "",
    payload,
  };
  Serializer.encode(message, (encoded) => (frame = encoded));
  if (frame === undefined) throw new Error("nothing was encoded");
  return frame;
}

function decode(frame: string | ArrayBuffer): Fields {
  let fields: Fields | undefined;
  Serializer.decode(frame, (message) => (fields = message));
  if (!fields) throw new Error("nothing was decoded");
  return fields;
}

describe("version 2 as text", () => {
  const { decode: read, encode: written } = vectors("v2_text.json");
  // Others write refs that are numbers, spaces, escapes and elements of their own; this client never does.
  const own = read.filter(({ text = "", payload }) => {
    const [joinRef, ref, topic, event, , ...more] = JSON.parse(text) as unknown[];
    const plain = [joinRef ?? "", ref ?? "", topic, event].every((field) => typeof field === "string");
    return plain && more.length === 0 && payload?.startsWith("{") && JSON.stringify(JSON.parse(text)) === text;
  });

  it("has vectors that this client writes", () => expect(own.length).toBeGreaterThanOrEqual(2));

  it.each(named(own))("writes %s", (_name, vector) => {
    expect(encode(vector, JSON.parse(vector.payload ?? ""))).toBe(vector.text);
  });

  it.each(named(written))("reads %s", (_name, vector) => {
    const payload: unknown = JSON.parse(vector.payload ?? "");
    expect(decode(vector.text ?? "")).toEqual({
      join_ref: ref(vector.join_ref),
      ref: ref(vector.ref),
      topic: vector.topic,
      event: vector.event ?? "phx_reply",
      payload: vector.status === undefined ? payload : { status: vector.status, response: payload },
    });
  });
});

describe("version 2 as bytes", () => {
  const { decode: read, encode: written, too_long: tooLong = [] } = vectors("v2_binary.json");
  // Kind 3 belongs to another client.
  const own = read.filter((vector) => vector.hex?.startsWith("00"));

  it("has vectors that this client writes", () => expect(own.length).toBeGreaterThan(5));

  it.each(named(own))("writes %s", (_name, vector) => {
    expect(hex(encode(vector, bytes(vector.payload_hex ?? "")) as ArrayBuffer)).toBe(vector.hex);
  });

  it.each(named(written))("reads %s", (_name, vector) => {
    const { payload, ...rest } = decode(bytes(vector.hex ?? ""));
    const text = (json: string | undefined): string => String(ref(json) ?? "");
    expect(rest).toEqual({
      join_ref: vector.kind === "broadcast" ? null : text(vector.join_ref),
      ref: vector.kind === "reply" ? text(vector.ref) : null,
      topic: vector.topic,
      event: vector.event ?? "phx_reply",
    });
    const response = vector.kind === "reply" ? (payload as { status: string; response: ArrayBuffer }) : null;
    expect(response?.status).toBe(vector.status);
    expect(hex(response?.response ?? (payload as ArrayBuffer))).toBe(vector.payload_hex);
  });

  it.each(named(tooLong.filter((vector) => vector.kind === "push")))("cannot write %s either", (_name, vector) => {
    expect(() => encode(vector, bytes(vector.payload_hex ?? ""))).toThrow(/255 bytes/u);
  });
});
