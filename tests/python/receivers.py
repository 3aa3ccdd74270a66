#!/usr/bin/env python3
"""Receivers of alerts as customers have them, none of them with our code: an HTTP receiver that checks the Standard Webhooks signature
with the library of that project, one that looks at what it gets as Slack does, one that takes what Alertmanager takes, and two SMTP
servers, with TLS from the first byte and with STARTTLS, that ask for a password.

  receivers.py SECRET CERTIFICATE KEY PORT

listens for HTTP on PORT (0: any) and prints one JSON line first, with the ports, then one for each message that arrived. How each of
them answers is set by POST /mode with {"webhook": "ok" | "500" | "slow" | "cut", "slack": ..., "alertmanager": ..., "smtp": ..., "starttls": ...}.
"""
import email, email.policy, http.server, json, ssl, sys, threading, time
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from standardwebhooks.webhooks import Webhook

SECRET, CERTIFICATE, KEY, PORT = sys.argv[1:]
MODES = {}
lock = threading.Lock()


def say(**line):
    with lock:
        print(json.dumps(line), flush=True)


class Http(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, text=b"ok"):
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/mode":
            MODES.update(json.loads(body))
            return self.answer(200)
        channel = {"/hook": "webhook", "/grouped": "webhook", "/services/T0/B0/x": "slack"}.get(self.path, "alertmanager")
        mode = MODES.get(channel, "ok")
        if mode == "cut":
            self.close_connection = True
            return self.connection.close()
        try:
            line = getattr(self, channel)(body)
        except Exception as error:  # whatever is wrong with it is the finding
            say(channel=channel, path=self.path, refused=f"{type(error).__name__}: {error}")
            return self.answer(400, b"refused")
        if mode == "slow":
            time.sleep(0.4)
        accepted = mode != "500"
        say(channel=channel, path=self.path, accepted=accepted, **line)
        try:
            self.answer(200 if accepted else 500)
        except OSError:
            pass

    def webhook(self, body):
        event = Webhook(SECRET).verify(body, dict(self.headers))
        assert event["specversion"] == "1.0" and event["id"] == self.headers["webhook-id"], "no CloudEvent of this id"
        return {"id": event["id"], "body": body.decode()}

    def slack(self, body):
        message = json.loads(body)
        blocks = message["blocks"]
        assert message["text"] and len(blocks) <= 50, "a message has a text and at most 50 blocks"
        for block in blocks:
            assert block["type"] in ("header", "section", "context"), block
            for text in [block["text"]] if "text" in block else block["elements"]:
                limit = 150 if block["type"] == "header" else 3000
                assert text["type"] in ("plain_text", "mrkdwn") and 0 < len(text["text"]) <= limit, text
        name = blocks[-1]["elements"][0]["text"]
        assert name.startswith("message "), name
        return {"id": name.removeprefix("message "), "body": body.decode()}

    def alertmanager(self, body):
        alerts = json.loads(body)
        for alert in alerts:
            assert alert["labels"]["alertname"] and alert["startsAt"] and alert["endsAt"], alert
        one = alerts[0] if alerts else {"annotations": {"message": "standing"}, "labels": {}}
        return {"id": one["annotations"]["message"], "count": len(alerts), "body": body.decode()}


class Mail:
    def __init__(self, channel):
        self.channel = channel

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.original_content, policy=email.policy.default)
        mode = MODES.get(self.channel, "ok")
        accepted = mode not in ("500", "cut")
        text = mail.get_body(("plain",)).get_content()
        say(channel=self.channel, accepted=accepted, id=mail["message-id"].strip("<>").split("@")[0], subject=mail["subject"],
            to=envelope.rcpt_tos, text=text, encrypted=session.ssl is not None or self.channel == "smtp", body=envelope.original_content.decode())
        if mode == "slow":
            time.sleep(0.4)
        return "250 taken" if accepted else "554 not now"


def sign_in(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"pristine", b"correct horse"))


def context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(CERTIFICATE, KEY)
    return made


def smtp(channel, **more):
    # A free port first: the controller looks whether it can be reached at the port that it was given.
    import socket
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    controller = Controller(Mail(channel), hostname="127.0.0.1", port=port, authenticator=sign_in, auth_required=True, **more)
    controller.start()
    return port


if __name__ == "__main__":
    web = http.server.ThreadingHTTPServer(("127.0.0.1", int(PORT)), Http)
    ports = {
        "http": web.server_address[1],
        "smtp": smtp("smtp", ssl_context=context(), auth_require_tls=False),
        "starttls": smtp("starttls", tls_context=context(), require_starttls=True),
    }
    say(ports=ports)
    web.serve_forever()
