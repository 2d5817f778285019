// A web handler in the style of CGI: the request is in the environment and on standard input, the answer goes to
// standard output.
//
//   GET  /fn/demo/web            a page
//   GET  /fn/demo/web/hello/Ada  greets
//   POST /fn/demo/web/upper      the body in upper case
//   GET  /fn/demo/web/old        redirects to /new
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char* variable(const char* name) {
  const char* value = getenv(name);
  return value ? value : "";
}

static void put_escaped(const char* text) {
  for (; *text; text++) {
    switch (*text) {
      case '<': fputs("&lt;", stdout); break;
      case '>': fputs("&gt;", stdout); break;
      case '&': fputs("&amp;", stdout); break;
      case '"': fputs("&quot;", stdout); break;
      default: putchar(*text);
    }
  }
}

int main(void) {
  const char *method = variable("REQUEST_METHOD"), *path = variable("PATH_INFO");
  if (strcmp(path, "") == 0 || strcmp(path, "/") == 0) {
    printf("Content-Type: text/html; charset=utf-8\n\n<!doctype html><title>web</title><p>This is ");
    put_escaped(variable("SCRIPT_NAME"));
    puts("</p>");
  } else if (strncmp(path, "/hello/", 7) == 0) {
    printf("Content-Type: text/html; charset=utf-8\n\n<p>Hello, ");
    put_escaped(path + 7);
    puts("!</p>");
  } else if (strcmp(path, "/upper") == 0 && strcmp(method, "POST") == 0) {
    printf("Content-Type: text/plain\n\n");
    for (int c; (c = getchar()) != EOF;) putchar(toupper(c));
  } else if (strcmp(path, "/upper") == 0) {
    printf("Status: 405 Method Not Allowed\nAllow: POST\nContent-Type: text/plain\n\nuse POST\n");
  } else if (strcmp(path, "/old") == 0) {
    printf("Location: %s/new\n\n", variable("SCRIPT_NAME"));
  } else {
    printf("Status: 404 Not Found\nContent-Type: text/plain\n\nthere is no such page\n");
  }
  return 0;
}
