#include "redis.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>
#include <thread>

#include "base/fd.h"

namespace spore::bench {

RedisServer::RedisServer() {
  std::random_device random;
  for (int i = 0; i < 20; ++i) {
    port_ = 12'000 + static_cast<int>(random() % 18'000);  // below those the system gives to clients
    if (launch()) return;
  }
  give_up("redis-server does not start; the tests install it (make install)");
}

RedisServer::~RedisServer() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

bool RedisServer::launch() {
  const std::string port = std::to_string(port_), directory = directory_.path().string(),
                    log = (directory_.path() / "log").string();
  const char* words[] = {"redis-server", "--bind",    "127.0.0.1", "--port", port.c_str(),   "--dir", directory.c_str(),
                         "--logfile",    log.c_str(), "--save",    "",       "--appendonly", "no",    "--daemonize",
                         "no",           nullptr};
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // not to outlive a benchmark that crashed
    if (::getppid() != parent) ::_exit(126);
    ::execvp(words[0], const_cast<char**>(words));
    ::_exit(127);
  }
  if (pid_ < 0) return false;
  for (const auto end = soon(); Clock::now() < end;) {
    if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      return false;
    }
    // That it is this server, and not another one that has the port: it knows its directory.
    const std::unique_ptr<redisContext, decltype(&redisFree)> connection(::redisConnect("127.0.0.1", port_),
                                                                         &redisFree);
    if (connection && connection->err == 0) {
      auto* reply = static_cast<redisReply*>(::redisCommand(connection.get(), "CONFIG GET dir"));
      const bool ours = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
                        directory == std::string(reply->element[1]->str, reply->element[1]->len);
      if (reply) ::freeReplyObject(reply);
      if (ours) return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

PlainRedis::PlainRedis(int port, unsigned connections) {
  for (unsigned i = 0; i < connections; ++i) {
    connections_.emplace_back(::redisConnect("127.0.0.1", port), &redisFree);
    CHECK(connections_.back() && connections_.back()->err == 0, port);
  }
}

uint64_t PlainRedis::take_reply(redisContext& connection) {
  void* answer = nullptr;
  CHECK(::redisGetReply(&connection, &answer) == REDIS_OK, connection.errstr);
  auto* reply = static_cast<redisReply*>(answer);
  CHECK(reply->type != REDIS_REPLY_ERROR, reply->str);
  const uint64_t bytes = reply->len;
  ::freeReplyObject(reply);
  return bytes;
}

void PlainRedis::store(ByteSpan bytes, uint64_t part_bytes) {
  stored_bytes_ = bytes.size();
  part_bytes_ = part_bytes;
  for (uint64_t at = 0; at < bytes.size(); at += part_bytes) {
    const ByteSpan part = bytes.subspan(at, std::min<uint64_t>(part_bytes, bytes.size() - at));
    ::redisAppendCommand(connections_[0].get(), "SET plain:%llu %b", static_cast<unsigned long long>(at / part_bytes),
                         part.data(), part.size());
    take_reply(*connections_[0]);
  }
}

void PlainRedis::fetch() {
  const uint64_t parts = (stored_bytes_ + part_bytes_ - 1) / part_bytes_;
  std::vector<uint64_t> got(connections_.size());
  const auto on = [&](size_t which) {
    redisContext& connection = *connections_[which];
    for (uint64_t part = which; part < parts; part += connections_.size())
      ::redisAppendCommand(&connection, "GET plain:%llu", static_cast<unsigned long long>(part));
    for (uint64_t part = which; part < parts; part += connections_.size()) got[which] += take_reply(connection);
  };
  std::vector<std::thread> others;
  for (size_t which = 1; which < connections_.size(); ++which) others.emplace_back(on, which);
  on(0);
  for (std::thread& other : others) other.join();
  uint64_t bytes = 0;
  for (const uint64_t some : got) bytes += some;
  CHECK(bytes == stored_bytes_, bytes, stored_bytes_);
}

void PlainRedis::overwrite(const std::vector<uint64_t>& offsets, uint64_t size_bytes) {
  const Bytes bytes = random_content(size_bytes, 3);
  for (const uint64_t offset : offsets)
    ::redisAppendCommand(connections_[0].get(), "SETRANGE plain:%llu %llu %b",
                         static_cast<unsigned long long>(offset / part_bytes_),
                         static_cast<unsigned long long>(offset % part_bytes_), bytes.data(), bytes.size());
  for (size_t i = 0; i < offsets.size(); ++i) take_reply(*connections_[0]);
}

}  // namespace spore::bench
