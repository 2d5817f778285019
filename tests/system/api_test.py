"""The catalogue over HTTP: publish, describe, list, configure, versions, rollback, remove, operations, keys."""

import json
import os
import subprocess
import tempfile
import unittest

from host import DEADLINE_S, ECHO, ENDLESS, NOOP, SPORE, SystemTest, says, wasm


class Catalogue(SystemTest):
    def test_publishing_makes_a_version_that_can_be_called(self):
        answer = self.host.publish("acme/first", says("one"))
        self.assertEqual(answer.status, 201)
        self.assertEqual(answer.headers["Location"], "/v1/functions/acme/first@1")
        self.assertEqual(answer.headers["ETag"], '"' + answer.json()["digest"] + '"')
        self.assertEqual(answer.json()["version"], 1)
        self.assertEqual(self.host.call("acme/first").body, b"one")

    def test_publishing_the_same_again_changes_nothing(self):
        self.assertEqual(self.host.publish("acme/same", NOOP).status, 201)
        again = self.host.publish("acme/same", NOOP)
        self.assertEqual((again.status, again.json()["version"]), (200, 1))

    def test_versions_can_be_called_listed_and_rolled_back(self):
        for text in ("one", "two", "three"):
            self.published("acme/versions", says(text))
        self.assertEqual(self.host.call("acme/versions").body, b"three")
        self.assertEqual(self.host.call("acme/versions@1").body, b"one")
        self.assertProblem(self.host.call("acme/versions@9"), 404, "not_found")
        listed = self.host.ask("GET", "/v1/functions/acme/versions/versions").json()
        self.assertEqual([v["version"] for v in listed["versions"]], [3, 2, 1])
        self.assertEqual(listed["current"], 3)
        back = self.host.ask("POST", "/v1/functions/acme/versions/rollback")
        self.assertEqual((back.status, back.json()["version"]), (200, 2))
        self.assertEqual(self.host.call("acme/versions").body, b"two")
        chosen = self.host.ask("POST", "/v1/functions/acme/versions/rollback", '{"version": 1}')
        self.assertEqual(chosen.status, 200)
        self.assertEqual(self.host.call("acme/versions").body, b"one")
        self.assertProblem(self.host.ask("POST", "/v1/functions/acme/versions/rollback", '{"version": 77}'), 404,
                           "not_found")
        self.assertProblem(self.host.ask("POST", "/v1/functions/acme/versions/rollback", "nonsense"), 400,
                           "bad_request")

    def test_if_match_guards_what_it_names(self):
        first = self.host.publish("acme/guarded", says("one"))
        self.assertProblem(self.host.publish("acme/guarded", says("two"), If_Match='"' + "0" * 64 + '"'), 412,
                           "precondition_failed")
        self.assertProblem(self.host.publish("acme/guarded", says("two"), If_Match="nonsense"), 412,
                           "precondition_failed")
        self.assertProblem(self.host.publish("acme/guarded", says("two"), If_None_Match="*"), 412,
                           "precondition_failed")
        self.assertEqual(self.host.call("acme/guarded").body, b"one")
        self.assertEqual(self.host.publish("acme/guarded", says("two"), If_Match=first.headers["ETag"]).status, 201)
        self.assertEqual(self.host.publish("acme/guarded", says("three"), If_Match="*").status, 201)
        self.assertProblem(self.host.publish("acme/absent", says("x"), If_Match="*"), 412, "precondition_failed")
        self.assertEqual(self.host.publish("acme/absent", says("x"), If_None_Match="*").status, 201)
        stale = self.host.ask("DELETE", "/v1/functions/acme/guarded", headers={"If-Match": first.headers["ETag"]})
        self.assertProblem(stale, 412, "precondition_failed")

    def test_describing_and_listing(self):
        for name in ("a1", "a2", "a3", "b1"):
            self.published("lister/" + name, NOOP)
        one = self.host.ask("GET", "/v1/functions/lister/a1")
        self.assertEqual(one.json()["wasm_bytes"], len(wasm(NOOP)))
        self.assertEqual(one.json()["config"]["timeout_ms"], 30000)
        self.assertEqual(self.host.ask("GET", "/v1/functions/lister/a1@1").json()["version"], 1)
        self.assertProblem(self.host.ask("GET", "/v1/functions/lister/a1@2"), 404, "not_found")
        self.assertProblem(self.host.ask("GET", "/v1/functions/lister/none"), 404, "not_found")

        def names(query):
            page = self.host.ask("GET", "/v1/functions/lister" + query).json()
            return [f["name"] for f in page["functions"]], page.get("cursor")

        self.assertEqual(names(""), (["a1", "a2", "a3", "b1"], None))
        self.assertEqual(names("?prefix=a"), (["a1", "a2", "a3"], None))
        self.assertEqual(names("?limit=2"), (["a1", "a2"], "lister/a2"))
        self.assertEqual(names("?limit=2&cursor=lister%2Fa2"), (["a3", "b1"], None))
        self.assertIn("lister", {f["tenant"] for f in self.host.ask("GET", "/v1/functions").json()["functions"]})
        self.assertProblem(self.host.ask("GET", "/v1/functions?cursor=nonsense"), 400, "bad_request")

    def test_a_publish_can_bring_its_configuration(self):
        answer = self.host.publish("acme/brings", ECHO, Spore_Config='{"timeout_ms": 1234, "env": {"A": "b"}}')
        self.assertEqual((answer.status, answer.json()["version"]), (201, 1))
        answer = self.host.publish("acme/brings", NOOP, Spore_Config='{"args": ["x"]}')
        self.assertEqual((answer.status, answer.json()["version"]), (201, 2))
        config = self.host.ask("GET", "/v1/functions/acme/brings/config").json()
        self.assertEqual((config["timeout_ms"], config["env"], config["args"]), (1234, {"A": "b"}, ["x"]))
        for bad in ('{"timeout_ms": 0}', '{"nothing": 1}', "no json"):
            document = self.assertProblem(self.host.publish("acme/brings", NOOP, Spore_Config=bad), 400, "bad_request")
            self.assertIn("Spore-Config", document["detail"])

    def test_configuring_makes_a_version(self):
        self.published("acme/configured", ECHO)
        answer = self.host.configure("acme/configured", timeout_ms=1234, env={"A": "b"}, args=["x"])
        self.assertEqual((answer.status, answer.json()["version"]), (200, 2))
        config = self.host.ask("GET", "/v1/functions/acme/configured/config").json()
        self.assertEqual((config["timeout_ms"], config["env"], config["args"]), (1234, {"A": "b"}, ["x"]))
        self.assertEqual(config["output_max_bytes"], 64 << 20)
        for bad in ('{"timeout_ms": 0}', '{"timeout_ms": "x"}', '{"unknown": 1}', "[]", "{", '{"env": {"A=B": "x"}}'):
            self.assertProblem(self.host.ask("PUT", "/v1/functions/acme/configured/config", bad), 400, "bad_request")
        self.assertProblem(self.host.configure("acme/nobody", timeout_ms=5), 404, "not_found")

    def test_what_is_removed_is_gone(self):
        self.published("acme/removed", NOOP)
        self.assertEqual(self.host.call("acme/removed").status, 200)
        self.assertEqual(self.host.ask("DELETE", "/v1/functions/acme/removed").status, 204)
        self.assertProblem(self.host.call("acme/removed"), 404, "not_found")
        self.assertProblem(self.host.ask("GET", "/v1/functions/acme/removed"), 404, "not_found")
        self.assertProblem(self.host.ask("DELETE", "/v1/functions/acme/removed"), 404, "not_found")
        self.assertEqual(self.host.publish("acme/removed", NOOP).status, 201)

    def test_names_are_checked(self):
        for path in ("a..%2Fb/c", "%2e%2e/x", "a/-x", "a/" + "x" * 65, "a%00b/c", "a/b%20c"):
            answer = self.host.publish(path, NOOP)
            self.assertProblem(answer, 400, "bad_request")
        self.assertProblem(self.host.publish("acme/first@3", NOOP), 400, "bad_request")

    def test_publishing_can_answer_before_it_is_done(self):
        answer = self.host.publish("acme/later", says("later"), Prefer="respond-async")
        self.assertEqual(answer.status, 202)
        location = answer.headers["Location"]
        self.wait_for(lambda: self.host.ask("GET", location).json()["status"] != "running")
        operation = self.host.ask("GET", location).json()
        self.assertEqual((operation["status"], operation["progress"]), ("succeeded", 1))
        self.assertEqual(operation["result"]["version"], 1)
        self.assertEqual(self.host.call("acme/later").body, b"later")
        bad = self.host.publish("acme/bad", b"not wasm", Prefer="respond-async").headers["Location"]
        self.wait_for(lambda: self.host.ask("GET", bad).json()["status"] != "running")
        self.assertEqual(self.host.ask("GET", bad).json()["problem"]["status"], 422)
        self.assertProblem(self.host.ask("GET", "/v1/operations/" + "0" * 32), 404, "not_found")

    def test_publishing_can_be_watched(self):
        answer = self.host.publish("acme/watched", says("watched"), Accept="text/event-stream")
        self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "text/event-stream"))
        events = [dict(line.split(": ", 1) for line in event.splitlines())
                  for event in answer.body.decode().strip().split("\n\n")]
        self.assertEqual(events[-1]["event"], "published")
        self.assertEqual(json.loads(events[-1]["data"])["version"], 1)
        shares = [json.loads(event["data"])["share"] for event in events[:-1]]
        self.assertEqual(shares, sorted(shares))
        bad = self.host.publish("acme/watched", b"not wasm", Accept="text/event-stream").body.decode()
        self.assertIn("event: problem\n", bad)
        self.assertIn('"status":422', bad)

    def test_methods_and_paths_that_mean_nothing(self):
        answer = self.host.ask("POST", "/v1/functions/acme/first", b"x")
        self.assertProblem(answer, 405, "method_not_allowed")
        self.assertEqual(answer.headers["Allow"], "GET, HEAD, PUT, DELETE")
        self.assertProblem(self.host.ask("GET", "/v1/functions/acme/first/call"), 405, "method_not_allowed")
        self.assertProblem(self.host.ask("GET", "/nowhere"), 404, "not_found")

    def test_the_host_tells_about_itself(self):
        self.assertEqual(self.host.ask("GET", "/healthz").body, b"ok\n")
        self.assertEqual(self.host.ask("GET", "/readyz").status, 200)
        self.assertIn("text/html", self.host.ask("GET", "/").headers["Content-Type"])
        api = self.host.ask("GET", "/v1/openapi.json").json()
        self.assertIn("/v1/functions/{tenant}/{name}/call", api["paths"])
        self.assertGreaterEqual(self.host.metric("spore_connections_accepted_total"), 1)
        self.assertEqual(self.host.ask("HEAD", "/healthz").body, b"")

    def test_foreign_hosts_and_origins_are_refused(self):
        self.assertProblem(self.host.ask("GET", "/healthz", headers={"Host": "evil.example"}), 403, "forbidden")
        self.assertProblem(self.host.ask("POST", "/v1/functions/acme/first/call", headers={"Origin": "http://evil.example"}),
                           403, "forbidden")
        self.assertEqual(self.host.ask("GET", "/healthz", headers={"Host": "localhost:1"}).status, 200)


class Keys(SystemTest):
    def test_keys_have_tenants_and_scopes(self):
        keys = {"keys": [{"token": "caller-0123456789", "tenant": "acme", "scopes": ["call"]},
                         {"token": "owner-01234567890", "tenant": "acme", "scopes": ["publish", "read"]},
                         {"token": "operator-01234567", "tenant": "*", "scopes": ["admin"]}]}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(keys, file)
            file.flush()
            os.chmod(file.name, 0o600)
            host = self.own_host("--keys", file.name)

        def ask(token, method, path, body=None):
            headers = {"Authorization": "Bearer " + token} if token else {}
            return host.ask(method, path, body, headers).status

        publish = ("PUT", "/v1/functions/acme/f", wasm(NOOP))
        self.assertEqual(ask(None, *publish), 401)
        self.assertEqual(ask("wrong", *publish), 401)
        self.assertEqual(ask("caller-0123456789", *publish), 403)
        self.assertEqual(ask("owner-01234567890", *publish), 201)
        self.assertEqual(ask("owner-01234567890", "PUT", "/v1/functions/other/f", wasm(NOOP)), 404)
        self.assertEqual(ask("operator-01234567", "PUT", "/v1/functions/other/f", wasm(NOOP)), 201)
        self.assertEqual(ask("caller-0123456789", "POST", "/v1/functions/acme/f/call"), 200)
        self.assertEqual(ask("caller-0123456789", "POST", "/v1/functions/other/f/call"), 404)
        for query, status in (("?priority=low", 200), ("?priority=high", 403), ("?priority=high&async=1", 403)):
            self.assertEqual(ask("caller-0123456789", "POST", "/v1/functions/acme/f/call" + query), status)
        self.assertEqual(ask("owner-01234567890", "GET", "/metrics"), 403)
        self.assertEqual(ask("operator-01234567", "GET", "/metrics"), 200)
        self.assertEqual(ask(None, "GET", "/healthz"), 200)
        listed = host.ask("GET", "/v1/functions", headers={"Authorization": "Bearer owner-01234567890"}).json()
        self.assertEqual({f["tenant"] for f in listed["functions"]}, {"acme"})

    def refusal(self, *flags):
        done = subprocess.run([SPORE, "serve", "--data", tempfile.gettempdir() + "/unused", *flags],
                              capture_output=True, text=True, timeout=DEADLINE_S)
        self.assertEqual(done.returncode, 1)
        return done.stderr

    def test_without_keys_only_loopback_is_served(self):
        self.assertIn("keys", self.refusal("--listen", "0.0.0.0:0"))
        self.assertIn("keys", self.refusal("--listen", "[::]:0"))

    def test_a_key_file_that_others_can_read_is_refused(self):
        with tempfile.NamedTemporaryFile("w") as file:
            os.chmod(file.name, 0o644)
            self.assertIn("others than its owner", self.refusal("--keys", file.name))


if __name__ == "__main__":
    unittest.main()
