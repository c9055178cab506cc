"""PyPI `phxsocket`: version 1, refs that are numbers from 0, its JSON with spaces; threads of its own."""

from lines import commands, config, say
from phxsocket import Client


def main():
    client = Client(f"{config['url']}/websocket", config.get("params", {}))
    client.on_open = lambda _: say("open")
    client.on_close = lambda _: say("closed", code=None)

    def heard(message):
        if message.topic == "phoenix" and message.event == "phx_reply":
            say("heartbeat")

    client.on_message = heard
    client.connect()
    channels = {}

    def join(topic, params=None):
        channel = channels[topic] = client.channel(topic, params or {})

        def told(_socket, event, payload):
            say("message", topic=topic, event=event, payload=payload)

        channel.on_message = told
        channel.on_close = lambda: say("left", topic=topic)
        say("joined", topic=topic, response=channel.join())

    def push(topic, event, payload):
        answer = channels[topic].push(event, payload, reply=True).wait_for_response()
        say("reply", status=answer["status"], response=answer["response"])

    def leave(topic):
        channels[topic].leave()

    def connect():
        client.connect()

    actions = {"join": join, "push": push, "leave": leave, "connect": connect}
    for name, fields in commands():
        actions[name](**fields)


main()
