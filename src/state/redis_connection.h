// One connection to one Redis server: TCP, TLS where asked for, logged in. It sends requests in a pipeline and receives
// their replies in order, large ones straight into the caller's memory.
//
// One thread at a time. After an error it is of no use any more: what was sent last is known by `sent`.
#pragma once

#include <openssl/ssl.h>

#include <chrono>
#include <memory>
#include <span>
#include <string>

#include "base/fd.h"
#include "state/global_tier.h"
#include "state/redis_protocol.h"
#include "state/redis_url.h"

namespace spore::state {

struct RedisTlsOptions {
  std::string ca_file;           // PEM; empty: the system's authorities
  std::string certificate_file;  // PEM, of this client, with key_file; empty: none
  std::string key_file;
  std::string server_name;  // that the server's certificate must have; empty: the host in the URL
};

// What all TLS connections of a client share.
class RedisTlsContext {
 public:
  static Result<std::shared_ptr<const RedisTlsContext>> make(RedisTlsOptions options);
  ~RedisTlsContext() { SSL_CTX_free(context_); }
  RedisTlsContext(const RedisTlsContext&) = delete;
  RedisTlsContext& operator=(const RedisTlsContext&) = delete;

  SSL_CTX* get() const { return context_; }
  const RedisTlsOptions& options() const { return options_; }

 private:
  RedisTlsContext(SSL_CTX* context, RedisTlsOptions options) : context_(context), options_(std::move(options)) {}
  SSL_CTX* context_;
  RedisTlsOptions options_;
};

// A request and what becomes of it.
struct RedisExchange {
  const RedisRequest* request = nullptr;
  bool has_sink = false;
  std::span<uint8_t> sink;  // where a bulk string goes
  bool sent = false;        // all of it was given to the network: the server may have carried it out
  bool answered = false;
  RedisReply reply;
};

class RedisConnection {
 public:
  struct Login {
    std::string user;
    std::string password;
    uint32_t database = 0;
  };
  // kUnavailable; kPermissionDenied where Redis refuses the login; the message names the endpoint.
  static Result<std::unique_ptr<RedisConnection>> open(const RedisEndpoint& endpoint,
                                                       std::shared_ptr<const RedisTlsContext> tls, const Login& login,
                                                       Deadline deadline);
  ~RedisConnection();
  RedisConnection(const RedisConnection&) = delete;
  RedisConnection& operator=(const RedisConnection&) = delete;

  // Sends the requests in order and receives their replies. An error of the server is a reply; an error here is one of
  // the connection: kDeadlineExceeded, also where nothing moves for `silence_max`, else kUnavailable.
  Result<void> exchange(std::span<RedisExchange> exchanges, Deadline deadline,
                        std::chrono::milliseconds silence_max = std::chrono::hours(1));

  // Nothing has come in and the peer has not closed: fit for the next exchange. For connections that have lain idle.
  bool is_quiet() const;

  uint64_t sent_bytes() const { return sent_bytes_; }
  uint64_t received_bytes() const { return received_bytes_; }

 private:
  enum class Wait : uint8_t { kNone, kRead, kWrite };
  struct Moved {
    size_t bytes = 0;
    Wait wait = Wait::kNone;  // where bytes is 0
  };
  RedisConnection(RedisEndpoint endpoint, UniqueFd fd);
  Result<void> start_tls(const RedisTlsContext& tls, Deadline deadline);
  Result<void> log_in(const Login& login, Deadline deadline);
  Result<Moved> send(std::span<const ByteSpan> pieces);
  // Into `direct` first, where it is not empty, else into input_.
  Result<Moved> receive(std::span<uint8_t> direct, size_t& direct_bytes);
  Result<bool> wait(short events, Deadline deadline) const;  // false: the time is over
  std::unexpected<Error> lost(const std::string& what) const;

  RedisEndpoint endpoint_;
  UniqueFd fd_;
  SSL* ssl_ = nullptr;
  Bytes input_;
  size_t input_begin_ = 0;
  size_t input_end_ = 0;
  Bytes tls_output_;  // small pieces put together
  RedisReplyParser parser_;
  uint64_t sent_bytes_ = 0;
  uint64_t received_bytes_ = 0;
};

}  // namespace spore::state
