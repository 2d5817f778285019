#include "state/redis_connection.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <system_error>

#include "base/check.h"

namespace spore::state {
namespace {

constexpr size_t kInputBytes = 64 << 10;
// Replies that were asked for and have not come are kept below this, so that the server need not buffer more.
constexpr size_t kWindowBytes = 4 << 20;
constexpr size_t kWindowRequests = 1024;
constexpr size_t kPiecesAtOnce = 64;
constexpr size_t kTlsRecordBytes = 16 << 10;

std::string tls_error(const std::string& fallback) {
  std::string out;
  while (const unsigned long code = ERR_get_error()) {
    char text[256];
    ERR_error_string_n(code, text, sizeof text);
    out = text;
  }
  return out.empty() ? fallback : out;
}

bool is_address(const std::string& host) {
  uint8_t bytes[16];
  return ::inet_pton(AF_INET, host.c_str(), bytes) == 1 || ::inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

std::string text_of(int error_number) { return std::generic_category().message(error_number); }

// OpenSSL writes by write(2): where the peer is gone that raises SIGPIPE, which must not end the process. Takes what
// was raised in this thread while this lives, and nothing that was pending before.
class NoSigpipe {
 public:
  NoSigpipe() {
    sigset_t pending;
    ::sigpending(&pending);
    was_pending_ = ::sigismember(&pending, SIGPIPE) == 1;
    ::sigemptyset(&set_);
    ::sigaddset(&set_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~NoSigpipe() {
    if (!was_pending_) {
      const timespec zero{};
      while (::sigtimedwait(&set_, nullptr, &zero) == -1 && errno == EINTR) {
      }
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t set_, before_;
  bool was_pending_ = false;
};

}  // namespace

Result<std::shared_ptr<const RedisTlsContext>> RedisTlsContext::make(RedisTlsOptions options) {
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  if (!context) return fail(ErrorCode::kInternal, "TLS: " + tls_error("no context"));
  std::shared_ptr<const RedisTlsContext> out(new RedisTlsContext(context, std::move(options)));
  const RedisTlsOptions& is = out->options();
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  if (is.ca_file.empty() ? SSL_CTX_set_default_verify_paths(context) != 1
                         : SSL_CTX_load_verify_locations(context, is.ca_file.c_str(), nullptr) != 1)
    return fail(ErrorCode::kInvalidArgument, "the authorities' certificates in '" + is.ca_file +
                                                 "' cannot be read: " + tls_error("nothing is in it"));
  if (!is.certificate_file.empty() &&
      (SSL_CTX_use_certificate_chain_file(context, is.certificate_file.c_str()) != 1 ||
       SSL_CTX_use_PrivateKey_file(context, is.key_file.c_str(), SSL_FILETYPE_PEM) != 1 ||
       SSL_CTX_check_private_key(context) != 1))
    return fail(ErrorCode::kInvalidArgument, "the certificate '" + is.certificate_file + "' with the key '" +
                                                 is.key_file + "' cannot be used: " + tls_error("they do not fit"));
  return out;
}

RedisConnection::RedisConnection(RedisEndpoint endpoint, UniqueFd fd)
    : endpoint_(std::move(endpoint)), fd_(std::move(fd)), input_(kInputBytes) {}

RedisConnection::~RedisConnection() {
  if (ssl_) SSL_free(ssl_);
}

std::unexpected<Error> RedisConnection::lost(const std::string& what) const {
  return fail(ErrorCode::kUnavailable, "Redis at " + endpoint_.text() + ": " + what);
}

Result<bool> RedisConnection::wait(short events, Deadline deadline) const {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    pollfd entry{fd_.get(), events, 0};
    const int count = ::poll(&entry, 1, static_cast<int>(std::min<int64_t>(left, 60'000)));
    if (count > 0) return true;
    if (count < 0 && errno != EINTR) return fail_errno("poll");
  }
}

Result<std::unique_ptr<RedisConnection>> RedisConnection::open(const RedisEndpoint& endpoint,
                                                               std::shared_ptr<const RedisTlsContext> tls,
                                                               const Login& login, Deadline deadline) {
  const std::string where = "Redis at " + endpoint.text();
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found))
    return fail(ErrorCode::kUnavailable, where + ": the host's name is not known: " + ::gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
  std::string why = "no address";
  for (const addrinfo* at = found; at; at = at->ai_next) {
    UniqueFd fd(::socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return fail_errno("socket");
    const int on = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(fd.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    const bool connected = ::connect(fd.get(), at->ai_addr, at->ai_addrlen) == 0;
    if (!connected && errno != EINPROGRESS) {
      why = text_of(errno);
      continue;
    }
    std::unique_ptr<RedisConnection> out(new RedisConnection(endpoint, std::move(fd)));
    if (!connected) {
      ASSIGN_OR_RETURN(const bool ready, out->wait(POLLOUT, deadline));
      if (!ready) return fail(ErrorCode::kUnavailable, where + ": connecting took too long");
      int error = 0;
      socklen_t size = sizeof error;
      ::getsockopt(out->fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
      if (error != 0) {
        why = text_of(error);
        continue;
      }
    }
    if (tls) TRY(out->start_tls(*tls, deadline));
    TRY(out->log_in(login, deadline));
    return out;
  }
  return fail(ErrorCode::kUnavailable, where + ": " + why);
}

Result<void> RedisConnection::start_tls(const RedisTlsContext& tls, Deadline deadline) {
  ssl_ = SSL_new(tls.get());
  const std::string& name = tls.options().server_name.empty() ? endpoint_.host : tls.options().server_name;
  bool set = ssl_ && SSL_set_fd(ssl_, fd_.get()) == 1;
  if (set && is_address(name)) {
    set = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_), name.c_str()) == 1;
  } else if (set) {
    SSL_set_hostflags(ssl_, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    set = SSL_set1_host(ssl_, name.c_str()) == 1 && SSL_set_tlsext_host_name(ssl_, name.c_str()) == 1;
  }
  if (!set) return fail(ErrorCode::kInternal, "TLS: " + tls_error("no session"));
  const NoSigpipe quiet;
  while (true) {
    ERR_clear_error();
    const int result = SSL_connect(ssl_);
    if (result == 1) return {};
    const int error = SSL_get_error(ssl_, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
      const long verdict = SSL_get_verify_result(ssl_);
      if (verdict != X509_V_OK)
        return lost("its certificate is not good for '" + name + "': " + X509_verify_cert_error_string(verdict));
      return lost("TLS: " + tls_error("it ended the connection"));
    }
    ASSIGN_OR_RETURN(const bool ready, wait(error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline));
    if (!ready) return lost("TLS took too long");
  }
}

Result<void> RedisConnection::log_in(const Login& login, Deadline deadline) {
  std::vector<RedisRequest> requests;
  if (!login.password.empty()) {
    requests.emplace_back();
    requests.back().add("AUTH");
    if (!login.user.empty()) requests.back().add(login.user);
    requests.back().add(login.password);
  }
  const size_t logins = requests.size();
  if (login.database != 0) requests.push_back({"SELECT", std::to_string(login.database)});
  if (requests.empty()) return {};
  std::vector<RedisExchange> exchanges(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) exchanges[i].request = &requests[i];
  TRY(exchange(exchanges, deadline));
  for (size_t i = 0; i < exchanges.size(); ++i)
    if (exchanges[i].reply.is_error())
      return fail(
          i < logins || exchanges[i].reply.text.starts_with("NOAUTH") || exchanges[i].reply.text.starts_with("NOPERM")
              ? ErrorCode::kPermissionDenied
              : ErrorCode::kUnavailable,
          "Redis at " + endpoint_.text() + ": " + exchanges[i].reply.text);
  return {};
}

Result<RedisConnection::Moved> RedisConnection::send(std::span<const ByteSpan> pieces) {
  if (!ssl_) {
    iovec vector[kPiecesAtOnce];
    size_t count = 0;
    for (const ByteSpan piece : pieces) {
      if (count == kPiecesAtOnce) break;
      vector[count++] = {const_cast<uint8_t*>(piece.data()), piece.size()};
    }
    msghdr message{};
    message.msg_iov = vector;
    message.msg_iovlen = count;
    const ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
    if (sent >= 0) return Moved{static_cast<size_t>(sent)};
    if (errno == EAGAIN || errno == EINTR) return Moved{0, Wait::kWrite};
    return lost(text_of(errno));
  }
  // A record takes up to 16 KiB: what is smaller goes together.
  ByteSpan bytes = pieces[0];
  if (bytes.size() < kTlsRecordBytes && pieces.size() > 1) {
    tls_output_.clear();
    for (const ByteSpan piece : pieces) {
      const size_t room = kTlsRecordBytes - tls_output_.size();
      const ByteSpan head = piece.first(std::min(room, piece.size()));
      tls_output_.insert(tls_output_.end(), head.begin(), head.end());
      if (tls_output_.size() == kTlsRecordBytes) break;
    }
    bytes = tls_output_;
  }
  const NoSigpipe quiet;
  ERR_clear_error();
  size_t sent = 0;
  const int result = SSL_write_ex(ssl_, bytes.data(), bytes.size(), &sent);
  if (result == 1) return Moved{sent};
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_WRITE: return Moved{0, Wait::kWrite};
    case SSL_ERROR_WANT_READ: return Moved{0, Wait::kRead};
    default: return lost("the connection is lost: " + tls_error("it was closed"));
  }
}

Result<RedisConnection::Moved> RedisConnection::receive(std::span<uint8_t> direct, size_t& direct_bytes) {
  CHECK(input_begin_ == input_end_);
  input_begin_ = input_end_ = 0;
  direct_bytes = 0;
  size_t count = 0;
  if (!ssl_) {
    iovec vector[2] = {{direct.data(), direct.size()}, {input_.data(), input_.size()}};
    const bool both = !direct.empty();
    const ssize_t got = ::readv(fd_.get(), both ? vector : vector + 1, both ? 2 : 1);
    if (got == 0) return lost("it closed the connection");
    if (got < 0) {
      if (errno == EAGAIN || errno == EINTR) return Moved{0, Wait::kRead};
      return lost(text_of(errno));
    }
    count = static_cast<size_t>(got);
  } else {
    const NoSigpipe quiet;
    ERR_clear_error();
    const std::span<uint8_t> to = direct.empty() ? std::span<uint8_t>(input_) : direct;
    const int result = SSL_read_ex(ssl_, to.data(), to.size(), &count);
    if (result != 1) {
      switch (SSL_get_error(ssl_, result)) {
        case SSL_ERROR_WANT_WRITE: return Moved{0, Wait::kWrite};
        case SSL_ERROR_WANT_READ: return Moved{0, Wait::kRead};
        default: return lost("the connection is lost: " + tls_error("it was closed"));
      }
    }
  }
  direct_bytes = std::min(count, direct.size());
  input_end_ = count - direct_bytes;
  received_bytes_ += count;
  return Moved{count};
}

Result<void> RedisConnection::exchange(std::span<RedisExchange> exchanges, Deadline deadline,
                                       std::chrono::milliseconds silence_max) {
  std::vector<ByteSpan> pieces;  // of the requests from `taken` on backwards: what is to be sent
  size_t piece = 0;
  std::vector<size_t> ends;  // for each request taken, how many pieces were there after it
  size_t taken = 0, sent = 0, answered = 0;
  size_t window_bytes = 0;
  Deadline silent_until = Clock::now() + silence_max;
  const auto start_reply = [&] {
    if (answered == exchanges.size()) return;
    if (exchanges[answered].has_sink) {
      parser_.begin(exchanges[answered].sink);
    } else {
      parser_.begin();
    }
  };
  start_reply();
  while (answered < exchanges.size()) {
    // Take requests while the window is open.
    while (taken < exchanges.size() && pieces.size() - piece < kPiecesAtOnce &&
           (taken == answered ||
            (window_bytes + exchanges[taken].sink.size() <= kWindowBytes && taken - answered < kWindowRequests))) {
      if (piece == pieces.size()) {
        pieces.clear();
        ends.clear();
        piece = 0;
      }
      exchanges[taken].request->append_pieces(pieces);
      ends.push_back(pieces.size());
      window_bytes += exchanges[taken].sink.size();
      ++taken;
    }
    Moved out{0, Wait::kNone};
    bool moved = false;
    if (piece < pieces.size()) {
      ASSIGN_OR_RETURN(out, send(std::span(pieces).subspan(piece)));
      sent_bytes_ += out.bytes;
      moved = out.bytes > 0;
      size_t left = out.bytes;
      while (piece < pieces.size() && left >= pieces[piece].size()) left -= pieces[piece++].size();
      if (left > 0) pieces[piece] = pieces[piece].subspan(left);
      const size_t first = taken - ends.size();
      while (sent < taken && (sent < first || ends[sent - first] <= piece)) exchanges[sent++].sent = true;
    }
    Moved in{0, Wait::kNone};
    if (answered < taken) {
      size_t direct_bytes = 0;
      ASSIGN_OR_RETURN(in, receive(parser_.direct(), direct_bytes));
      if (direct_bytes > 0) parser_.placed(direct_bytes);
      moved = moved || in.bytes > 0;
      while (input_begin_ < input_end_) {
        auto used = parser_.feed(ByteSpan(input_).subspan(input_begin_, input_end_ - input_begin_));
        if (!used) return std::unexpected(std::move(used).error().within("Redis at " + endpoint_.text()));
        input_begin_ += *used;
        if (!parser_.done()) continue;
        RedisExchange& done = exchanges[answered];
        RedisReply reply = parser_.take();
        if (answered >= sent) return lost(reply.is_error() ? reply.text : "it answers what was not asked");
        done.reply = std::move(reply);
        done.answered = true;
        window_bytes -= done.sink.size();
        ++answered;
        start_reply();
        if (answered == exchanges.size()) break;
      }
      if (answered == exchanges.size() && input_begin_ < input_end_) return lost("it answers what was not asked");
    }
    if (moved) {
      silent_until = Clock::now() + silence_max;
      continue;
    }
    const bool want_write = piece < pieces.size() || in.wait == Wait::kWrite;
    const short events = static_cast<short>(POLLIN | (want_write ? POLLOUT : 0));
    ASSIGN_OR_RETURN(const bool ready, wait(events, std::min(deadline, silent_until)));
    if (!ready) return fail(ErrorCode::kDeadlineExceeded, "Redis at " + endpoint_.text() + " did not answer in time");
  }
  return {};
}

bool RedisConnection::is_quiet() const {
  if (ssl_ && SSL_pending(ssl_) > 0) return false;
  pollfd entry{fd_.get(), POLLIN, 0};
  return ::poll(&entry, 1, 0) == 0;
}

}  // namespace spore::state
