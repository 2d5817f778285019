#include "gateway/openapi.h"

namespace spore::gateway {

std::string_view openapi() {
  return R"json({
  "openapi": "3.1.0",
  "info": {
    "title": "Spore",
    "version": "1",
    "description": "Publish WebAssembly functions and call them. Errors are RFC 9457 problem documents."
  },
  "components": {
    "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    "parameters": {
      "tenant": {"name": "tenant", "in": "path", "required": true, "schema": {"$ref": "#/components/schemas/Name"}},
      "name": {"name": "name", "in": "path", "required": true, "schema": {"$ref": "#/components/schemas/Name"},
               "description": "NAME, or NAME@VERSION to read or call one version"},
      "callId": {"name": "id", "in": "path", "required": true, "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}},
      "ifMatch": {"name": "If-Match", "in": "header", "schema": {"type": "string"},
                  "description": "The entity tag of the current version, or *"}
    },
    "schemas": {
      "Name": {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$"},
      "Config": {
        "type": "object",
        "additionalProperties": false,
        "properties": {
          "timeout_ms": {"type": "integer", "minimum": 1, "maximum": 3600000, "default": 30000},
          "memory_max_bytes": {"type": "integer", "maximum": 4294967296, "default": 1073741824},
          "output_max_bytes": {"type": "integer", "maximum": 1073741824, "default": 67108864},
          "local_bytes_max": {"type": "integer", "maximum": 4294967296, "default": 67108864, "description": "Of files that a call writes; 0: none"},
          "local_files_max": {"type": "integer", "minimum": 1, "maximum": 1000000, "default": 4096},
          "concurrency_max": {"type": "integer", "minimum": 0, "maximum": 1000000, "default": 0},
          "cpu_ms": {"type": "integer", "minimum": 0, "maximum": 3600000, "default": 0, "description": "CPU time of one call; 0: no limit"},
          "cpu_weight": {"type": "integer", "minimum": 1, "maximum": 10000, "default": 100, "description": "Among those that want the same core"},
          "cpu_percent": {"type": "integer", "minimum": 0, "maximum": 100000, "default": 0, "description": "Of one core, for all its calls on a host together; 0: no limit"},
          "mounts": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Path to files:DIRECTORY or host:NAME"},
          "push": {"type": "string", "enum": ["explicit", "on_success"], "default": "explicit", "description": "Whether what a call that ends with exit code 0 has written to state is pushed before its answer"},
          "env": {"type": "object", "additionalProperties": {"type": "string"}},
          "network": {"type": ["object", "null"], "default": null, "additionalProperties": false, "description": "Null: none",
                      "properties": {
                        "internet": {"type": "boolean", "default": false, "description": "Every public address"},
                        "allow": {"type": "array", "items": {"type": "string"}, "description": "HOST:PORT, as 10.1.0.0/16:443, [2001:db8::7]:53/udp, db.example.com:5000-5010"},
                        "egress_bits": {"type": "integer", "default": 100000000, "description": "A second"},
                        "ingress_bits": {"type": "integer", "default": 100000000},
                        "sockets_max": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 64}}},
          "require": {"type": "array", "items": {"type": "string"}, "description": "Boundaries that a host must enforce to run it: cpu, network, lockdown"},
          "spectre_hardening": {"type": "boolean", "default": false, "description": "compile it so that mispredicted branches leak nothing of its memory; slower"},
          "isolation": {"type": "string", "enum": ["shared", "process"], "default": "shared", "description": "process: its calls run in a process of its tenant's own"},
          "args": {"type": "array", "items": {"type": "string"}}
        }
      },
      "Version": {
        "type": "object",
        "properties": {
          "tenant": {"type": "string"}, "name": {"type": "string"}, "version": {"type": "integer"},
          "digest": {"type": "string", "description": "SHA-256 of the module"},
          "wasm_bytes": {"type": "integer"}, "object_bytes": {"type": "integer"},
          "tier": {"enum": ["fast", "optimised"]}, "published_at": {"type": "string", "format": "date-time"},
          "current": {"type": "boolean"}, "config": {"$ref": "#/components/schemas/Config"}
        }
      },
      "Snapshot": {
        "type": "object",
        "properties": {
          "tenant": {"type": "string"}, "name": {"type": "string"}, "version": {"type": "integer"},
          "current": {"type": "boolean"}, "loaded": {"type": "boolean"},
          "stored_bytes": {"type": "integer", "description": "0: it is not in the store"}
        }
      },
      "SnapshotDescription": {
        "allOf": [{"$ref": "#/components/schemas/Snapshot"}, {
          "type": "object",
          "properties": {
            "format_version": {"type": "integer"}, "layout_version": {"type": "integer"},
            "module_digest": {"type": "string", "description": "SHA-256 of the module"},
            "initialisers": {"enum": ["none", "captured", "in each call"]},
            "because": {"type": "string", "description": "Why they run in each call"},
            "image_bytes": {"type": "integer"}, "resident_bytes": {"type": "integer"}, "globals": {"type": "integer"},
            "memories": {"type": "array", "items": {"type": "object", "properties": {
              "size_bytes": {"type": "integer"}, "size_max_bytes": {"type": "integer"}}}},
            "tables": {"type": "array", "items": {"type": "object", "properties": {
              "element": {"type": "string"}, "size": {"type": "integer"}, "size_max": {"type": "integer"}}}}
          }
        }]
      },
      "Value": {
        "type": "object",
        "properties": {
          "key": {"type": "string"}, "size_bytes": {"type": "integer"},
          "version": {"type": "string", "description": "The entity tag without its quotes"}
        }
      },
      "Call": {
        "type": "object",
        "properties": {
          "id": {"type": "string"}, "function": {"type": "string"}, "version": {"type": "integer"},
          "status": {"enum": ["queued", "running", "retrying", "succeeded", "failed", "cancelled"]},
          "dead": {"type": "boolean", "description": "Of a failed call: it is a dead letter"},
          "attempt": {"type": "integer"}, "attempts_max": {"type": "integer"}, "exit_code": {"type": "integer"},
          "created_at": {"type": "string", "format": "date-time"}, "started_at": {"type": "string", "format": "date-time"},
          "retry_at": {"type": "string", "format": "date-time"}, "ended_at": {"type": "string", "format": "date-time"},
          "expires_at": {"type": "string", "format": "date-time"}, "duration_us": {"type": "integer"},
          "cpu_us": {"type": "integer"}, "memory_bytes": {"type": "integer", "description": "Linear memory at its end"},
          "input_bytes": {"type": "integer"}, "output_bytes": {"type": "integer"},
          "problem": {"$ref": "#/components/schemas/Problem"}
        }
      },
      "Operation": {
        "type": "object",
        "properties": {
          "id": {"type": "string"}, "operation": {"type": "string"},
          "status": {"enum": ["running", "succeeded", "failed"]}, "progress": {"type": "number"},
          "result": {"$ref": "#/components/schemas/Version"}, "problem": {"$ref": "#/components/schemas/Problem"}
        }
      },
      "Problem": {
        "type": "object",
        "required": ["type", "title", "status"],
        "properties": {
          "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
          "detail": {"type": "string"}, "instance": {"type": "string"},
          "code": {"type": "string"}, "message": {"type": "string"}, "exit_code": {"type": "integer"},
          "function": {"type": "string"}, "version": {"type": "integer"},
          "stack": {"type": "array", "items": {"type": "object", "properties": {
            "function": {"type": "string"}, "index": {"type": "integer"}, "offset": {"type": "integer"}}}}
        }
      }
    },
    "responses": {
      "Version": {"description": "A version", "headers": {"ETag": {"schema": {"type": "string"}}},
                  "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Version"}}}},
      "Value": {"description": "What the value is now", "headers": {"ETag": {"schema": {"type": "string"}}},
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Value"}}}},
      "Problem": {"description": "What went wrong",
                  "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    }
  },
  "security": [{"key": []}, {}],
  "paths": {
    "/v1/functions": {
      "get": {
        "summary": "List functions",
        "parameters": [
          {"name": "prefix", "in": "query", "schema": {"type": "string"}},
          {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
          {"name": "cursor", "in": "query", "schema": {"type": "string"}}
        ],
        "responses": {"200": {"description": "Functions by tenant and name; `cursor` where there are more"}}
      }
    },
    "/v1/functions/{tenant}": {
      "parameters": [{"$ref": "#/components/parameters/tenant"}],
      "get": {"summary": "List a tenant's functions", "responses": {"200": {"description": "As above"}}}
    },
    "/v1/functions/{tenant}/{name}": {
      "parameters": [{"$ref": "#/components/parameters/tenant"}, {"$ref": "#/components/parameters/name"}],
      "get": {"summary": "Describe a function",
              "responses": {"200": {"$ref": "#/components/responses/Version"},
                            "404": {"$ref": "#/components/responses/Problem"}}},
      "put": {
        "summary": "Publish a module as the new current version",
        "description": "Accept: text/event-stream gives progress, then published or problem. Prefer: respond-async answers 202.",
        "parameters": [{"$ref": "#/components/parameters/ifMatch"},
                       {"name": "If-None-Match", "in": "header", "schema": {"const": "*"}},
                       {"name": "Spore-Config", "in": "header", "description": "Fields of the configuration, as JSON in ASCII; the others stay as they are",
                        "schema": {"type": "string"}}],
        "requestBody": {"required": true, "content": {"application/wasm": {"schema": {"type": "string", "format": "binary"}}}},
        "responses": {"200": {"$ref": "#/components/responses/Version"}, "201": {"$ref": "#/components/responses/Version"},
                      "202": {"description": "Accepted; Location names the operation"},
                      "412": {"$ref": "#/components/responses/Problem"}, "413": {"$ref": "#/components/responses/Problem"},
                      "422": {"$ref": "#/components/responses/Problem"}, "503": {"$ref": "#/components/responses/Problem"}}
      },
      "delete": {"summary": "Remove a function with all its versions",
                 "parameters": [{"$ref": "#/components/parameters/ifMatch"}],
                 "responses": {"204": {"description": "Removed"}, "404": {"$ref": "#/components/responses/Problem"}}}
    },
    "/v1/functions/{tenant}/{name}/config": {
      "parameters": [{"$ref": "#/components/parameters/tenant"}, {"$ref": "#/components/parameters/name"}],
      "get": {"summary": "Configuration of the current version",
              "responses": {"200": {"description": "The configuration", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Config"}}}}}},
      "put": {"summary": "A new version with this configuration and the same module; missing fields get their defaults",
              "parameters": [{"$ref": "#/components/parameters/ifMatch"}],
              "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Config"}}}},
              "responses": {"200": {"$ref": "#/components/responses/Version"}, "400": {"$ref": "#/components/responses/Problem"}}}
    },
    "/v1/functions/{tenant}/{name}/versions": {
      "parameters": [{"$ref": "#/components/parameters/tenant"}, {"$ref": "#/components/parameters/name"}],
      "get": {"summary": "Versions, newest first", "responses": {"200": {"description": "Versions"}}}
    },
    "/v1/functions/{tenant}/{name}/rollback": {
      "parameters": [{"$ref": "#/components/parameters/tenant"}, {"$ref": "#/components/parameters/name"}],
      "post": {"summary": "Make an older version current; default: the one before",
               "requestBody": {"content": {"application/json": {"schema": {"type": "object", "properties": {"version": {"type": "integer"}}}}}},
               "responses": {"200": {"$ref": "#/components/responses/Version"}, "404": {"$ref": "#/components/responses/Problem"}}}
    },
    "/v1/functions/{tenant}/{name}/logs": {
      "parameters": [{"$ref": "#/components/parameters/tenant"}, {"$ref": "#/components/parameters/name"}],
      "get": {"summary": "The last calls, newest first, with what they wrote to their logs",
              "parameters": [{"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}}],
              "responses": {"200": {"description": "Calls"}}}
    },
    "/v1/functions/{tenant}/{name}/call": {
      "parameters": [{"$ref": "#/components/parameters/tenant"}, {"$ref": "#/components/parameters/name"}],
      "post": {
        "summary": "Call a function: the body is its input, the response its output",
        "parameters": [{"name": "timeout_ms", "in": "query", "schema": {"type": "integer", "minimum": 1}, "description": "Shortens the configured one"},
                       {"name": "priority", "in": "query", "schema": {"enum": ["low", "normal", "high"], "default": "normal"}, "description": "Of those that wait; high takes a key for all tenants"},
                       {"name": "Prefer", "in": "header", "schema": {"type": "string"}, "description": "respond-async: store the call and answer 202"},
                       {"name": "async", "in": "query", "schema": {"type": "string"}, "description": "1: the same"},
                       {"name": "attempts", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100},
                        "description": "Of a call that is asynchronous or has a key; also as Spore-Attempts"},
                       {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "minLength": 1, "maxLength": 255}}],
        "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        "responses": {
          "200": {"description": "Exit code 0: the output",
                  "headers": {"Spore-Call-Id": {"schema": {"type": "string"}}, "Spore-Start": {"schema": {"enum": ["warm", "restored", "cold"]}},
                              "Spore-Cpu-Us": {"schema": {"type": "integer"}},
                              "Spore-Memory-Bytes": {"schema": {"type": "integer"}},
                              "Spore-Sent-Bytes": {"schema": {"type": "integer"}, "description": "By sockets"},
                              "Spore-Received-Bytes": {"schema": {"type": "integer"}},
                              "Spore-Duration-Us": {"schema": {"type": "integer"}}}},
          "202": {"description": "The call is stored", "headers": {"Location": {"schema": {"type": "string"}}},
                  "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Call"}}}},
          "404": {"$ref": "#/components/responses/Problem"}, "409": {"$ref": "#/components/responses/Problem"},
          "413": {"$ref": "#/components/responses/Problem"}, "422": {"$ref": "#/components/responses/Problem"},
          "429": {"$ref": "#/components/responses/Problem"}, "500": {"$ref": "#/components/responses/Problem"},
          "502": {"$ref": "#/components/responses/Problem"}, "503": {"$ref": "#/components/responses/Problem"},
          "504": {"$ref": "#/components/responses/Problem"}
        }
      }
    },
    "/v1/calls": {
      "get": {"summary": "List durable calls, of a tenant newest first",
              "parameters": [
                {"name": "tenant", "in": "query", "schema": {"type": "string"}},
                {"name": "status", "in": "query", "schema": {"enum": ["queued", "running", "retrying", "succeeded", "failed", "dead", "cancelled"]}},
                {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
                {"name": "cursor", "in": "query", "schema": {"type": "string"}}],
              "responses": {"200": {"description": "`cursor` where there are more", "content": {"application/json": {"schema": {
                              "type": "object", "properties": {
                                "calls": {"type": "array", "items": {"$ref": "#/components/schemas/Call"}},
                                "cursor": {"type": "string"}}}}}},
                            "400": {"$ref": "#/components/responses/Problem"}}}
    },
    "/v1/calls/{id}": {
      "parameters": [{"$ref": "#/components/parameters/callId"}],
      "get": {"summary": "A durable call; with Accept: text/event-stream an event `status` for each change until its end",
              "parameters": [{"name": "wait", "in": "query", "schema": {"type": "string"},
                              "description": "1ms to 60s: answer when it has ended, or when that is over"}],
              "responses": {"200": {"description": "The call", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Call"}}}},
                            "404": {"$ref": "#/components/responses/Problem"}}},
      "delete": {"summary": "Cancel it; discard a dead letter",
                 "responses": {"200": {"description": "It is cancelled", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Call"}}}},
                               "204": {"description": "The dead letter is gone"},
                               "404": {"$ref": "#/components/responses/Problem"}, "409": {"$ref": "#/components/responses/Problem"}}}
    },
    "/v1/calls/{id}/output": {
      "parameters": [{"$ref": "#/components/parameters/callId"}],
      "get": {"summary": "Its output",
              "responses": {"200": {"description": "The bytes"}, "404": {"$ref": "#/components/responses/Problem"},
                            "409": {"$ref": "#/components/responses/Problem"}}}
    },
    "/v1/calls/{id}/log": {
      "parameters": [{"$ref": "#/components/parameters/callId"}],
      "get": {"summary": "What the last attempt that ended wrote to its log",
              "responses": {"200": {"description": "Text"}, "404": {"$ref": "#/components/responses/Problem"}}}
    },
    "/v1/calls/{id}/graph": {
      "parameters": [{"$ref": "#/components/parameters/callId"}],
      "get": {"summary": "The calls that this call has led to: who called whom, and when, in us since it came",
              "responses": {"200": {"description": "Calls, parents before their children"}, "404": {"$ref": "#/components/responses/Problem"}}}
    },
    "/v1/calls/{id}/replay": {
      "parameters": [{"$ref": "#/components/parameters/callId"}],
      "post": {"summary": "Run a dead letter again",
               "responses": {"202": {"description": "It is queued", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Call"}}}},
                             "404": {"$ref": "#/components/responses/Problem"}, "409": {"$ref": "#/components/responses/Problem"}}}
    },
    "/v1/files/{tenant}": {
      "parameters": [{"$ref": "#/components/parameters/tenant"}],
      "get": {"summary": "List the files that a tenant shares with its functions",
              "parameters": [
                {"name": "below", "in": "query", "schema": {"type": "string"}, "description": "A directory"},
                {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
                {"name": "cursor", "in": "query", "schema": {"type": "string"}}],
              "responses": {"200": {"description": "`files` by path; `cursor` where there are more"}}}
    },
    "/v1/files/{tenant}/{path}": {
      "parameters": [{"$ref": "#/components/parameters/tenant"},
                     {"name": "path", "in": "path", "required": true, "schema": {"type": "string"}, "description": "May hold slashes"}],
      "get": {"summary": "A shared file", "responses": {"200": {"description": "Its bytes"}, "404": {"$ref": "#/components/responses/Problem"}}},
      "put": {"summary": "Publish a shared file, or replace it as a whole",
              "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
              "responses": {"200": {"description": "Replaced"}, "201": {"description": "New"}, "400": {"$ref": "#/components/responses/Problem"},
                            "409": {"$ref": "#/components/responses/Problem"}, "413": {"$ref": "#/components/responses/Problem"},
                            "503": {"$ref": "#/components/responses/Problem"}}},
      "delete": {"summary": "Remove a shared file; who has it open keeps it",
                 "responses": {"204": {"description": "Removed"}, "404": {"$ref": "#/components/responses/Problem"}}}
    },
    "/v1/state/{tenant}": {
      "parameters": [{"$ref": "#/components/parameters/tenant"}],
      "get": {"summary": "List a tenant's state values by key",
              "parameters": [
                {"name": "prefix", "in": "query", "schema": {"type": "string"}},
                {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
                {"name": "cursor", "in": "query", "schema": {"type": "string"}}],
              "responses": {"200": {"description": "`cursor` where there are more", "content": {"application/json": {"schema": {
                              "type": "object", "properties": {
                                "values": {"type": "array", "items": {"$ref": "#/components/schemas/Value"}},
                                "cursor": {"type": "string"}}}}}},
                            "503": {"$ref": "#/components/responses/Problem"}}}
    },
    "/v1/state/{tenant}/{key}": {
      "parameters": [{"$ref": "#/components/parameters/tenant"},
                     {"name": "key", "in": "path", "required": true, "schema": {"type": "string"},
                      "description": "1 to 512 bytes of UTF-8 without NUL, percent-encoded; slashes may stand as they are"}],
      "get": {"summary": "A state value, or a range of it",
              "parameters": [{"name": "Range", "in": "header", "schema": {"type": "string"}, "description": "One range of bytes"},
                             {"name": "If-Range", "in": "header", "schema": {"type": "string"}},
                             {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}},
                             {"$ref": "#/components/parameters/ifMatch"}],
              "responses": {"200": {"description": "Its bytes", "headers": {"ETag": {"schema": {"type": "string"}, "description": "The version"}}},
                            "206": {"description": "Those of the range"}, "304": {"description": "It is at that version"},
                            "404": {"$ref": "#/components/responses/Problem"}, "412": {"$ref": "#/components/responses/Problem"},
                            "416": {"$ref": "#/components/responses/Problem"}, "503": {"$ref": "#/components/responses/Problem"}}},
      "put": {"summary": "Make a value or replace it as a whole; with an offset, write a part of it",
              "parameters": [{"$ref": "#/components/parameters/ifMatch"},
                             {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}},
                             {"name": "offset", "in": "query", "schema": {"type": "integer", "minimum": 0},
                              "description": "Where the body goes in a value that exists; the value grows where it ends behind its end"}],
              "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
              "responses": {"200": {"$ref": "#/components/responses/Value"}, "201": {"$ref": "#/components/responses/Value"},
                            "400": {"$ref": "#/components/responses/Problem"}, "404": {"$ref": "#/components/responses/Problem"},
                            "412": {"$ref": "#/components/responses/Problem"}, "413": {"$ref": "#/components/responses/Problem"},
                            "503": {"$ref": "#/components/responses/Problem"}, "507": {"$ref": "#/components/responses/Problem"}}},
      "post": {"summary": "Append to a value; makes it where there is none",
               "parameters": [{"name": "append", "in": "query", "required": true, "allowEmptyValue": true, "schema": {"type": "string"}},
                              {"$ref": "#/components/parameters/ifMatch"}],
               "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
               "responses": {"200": {"$ref": "#/components/responses/Value"}, "201": {"$ref": "#/components/responses/Value"},
                             "412": {"$ref": "#/components/responses/Problem"}, "413": {"$ref": "#/components/responses/Problem"},
                             "503": {"$ref": "#/components/responses/Problem"}, "507": {"$ref": "#/components/responses/Problem"}}},
      "delete": {"summary": "Remove a value",
                 "parameters": [{"$ref": "#/components/parameters/ifMatch"}],
                 "responses": {"204": {"description": "Removed"}, "404": {"$ref": "#/components/responses/Problem"},
                               "412": {"$ref": "#/components/responses/Problem"}}}
    },
    "/v1/snapshots": {
      "get": {
        "summary": "List the images that calls begin from, one for each version",
        "parameters": [
          {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
          {"name": "cursor", "in": "query", "schema": {"type": "string"}}
        ],
        "responses": {"200": {"description": "`snapshots` by tenant, name and version; `cursor` where there are more",
          "content": {"application/json": {"schema": {"type": "object", "properties": {
            "snapshots": {"type": "array", "items": {"$ref": "#/components/schemas/Snapshot"}},
            "cursor": {"type": "string"}}}}}}}
      }
    },
    "/v1/snapshots/{tenant}": {
      "parameters": [{"$ref": "#/components/parameters/tenant"}],
      "get": {"summary": "List those of a tenant", "responses": {"200": {"description": "As above"}}}
    },
    "/v1/snapshots/{tenant}/{name}": {
      "parameters": [{"$ref": "#/components/parameters/tenant"}, {"$ref": "#/components/parameters/name"}],
      "get": {"summary": "List those of a function; with ?version=, describe one as below",
              "parameters": [{"name": "version", "in": "query", "schema": {"type": "string"}, "description": "A number, or current"}],
              "responses": {"200": {"description": "As above"}, "404": {"$ref": "#/components/responses/Problem"}}}
    },
    "/v1/snapshots/{tenant}/{name}/{version}": {
      "parameters": [{"$ref": "#/components/parameters/tenant"}, {"$ref": "#/components/parameters/name"},
                     {"name": "version", "in": "path", "required": true, "schema": {"type": "integer"}}],
      "get": {"summary": "Load a version's image and describe it",
              "responses": {"200": {"description": "The image", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SnapshotDescription"}}}},
                            "404": {"$ref": "#/components/responses/Problem"}, "503": {"$ref": "#/components/responses/Problem"}}}
    },
    "/fn/{tenant}/{name}/{path}": {
      "parameters": [{"$ref": "#/components/parameters/tenant"}, {"$ref": "#/components/parameters/name"},
                     {"name": "path", "in": "path", "required": true, "schema": {"type": "string"}, "description": "May be empty, and hold slashes"}],
      "get": {
        "summary": "A web handler: any method gives the request to the function as CGI 1.1 does, and the function answers",
        "responses": {
          "default": {"description": "Whatever the function answers"},
          "404": {"$ref": "#/components/responses/Problem"}, "413": {"$ref": "#/components/responses/Problem"},
          "429": {"$ref": "#/components/responses/Problem"}, "431": {"$ref": "#/components/responses/Problem"},
          "500": {"$ref": "#/components/responses/Problem"}, "502": {"$ref": "#/components/responses/Problem"},
          "503": {"$ref": "#/components/responses/Problem"}, "504": {"$ref": "#/components/responses/Problem"}
        }
      }
    },
    "/v1/operations/{id}": {
      "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}],
      "get": {"summary": "What became of a request that was answered 202",
              "responses": {"200": {"description": "The operation", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Operation"}}}}}}
    },
    "/healthz": {"get": {"summary": "200 while the process serves", "responses": {"200": {"description": "ok"}}}},
    "/readyz": {"get": {"summary": "200 while calls are taken, 503 while draining", "responses": {"200": {"description": "ready, and a line for each boundary, whether it is enforced"}, "503": {"$ref": "#/components/responses/Problem"}}}},
    "/metrics": {"get": {"summary": "Counters for Prometheus", "responses": {"200": {"description": "Text exposition format"}}}}
  }
}
)json";
}

std::string_view page() {
  return R"html(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Spore</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}
pre{background:#f4f4f2;padding:1rem;overflow:auto}code{font-size:.95em}</style></head>
<body><h1>Spore</h1>
<p>This host runs WebAssembly functions. Publish one, then call it:</p>
<pre>curl -T function.wasm http://localhost:7077/v1/functions/demo/hello
curl -d hi http://localhost:7077/v1/functions/demo/hello/call</pre>
<ul>
<li><a href="/v1/functions">Functions</a></li>
<li><a href="/metrics">Metrics</a></li>
<li><a href="/healthz">Health</a> and <a href="/readyz">readiness</a></li>
<li><a href="/v1/openapi.json">The API, described for programs</a></li>
</ul></body></html>
)html";
}

}  // namespace spore::gateway
