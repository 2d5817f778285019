// Files as a C program uses them, through wasi-libc: /work is writable.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

int main(void) {
  char text[64] = "";
  EXPECT(mkdir("/disk/box", 0777), 0);
  FILE* file = fopen("/disk/box/note", "w+");
  EXPECT_TRUE(file != NULL);
  if (!file) return finish();
  EXPECT(fprintf(file, "line %d\nline %d\n", 1, 2), 14);
  EXPECT(fseek(file, 7, SEEK_SET), 0);
  EXPECT_TRUE(fgets(text, sizeof(text), file) != NULL);
  EXPECT(strcmp(text, "line 2\n"), 0);
  EXPECT(fclose(file), 0);
  file = fopen("/disk/box/note", "a");
  EXPECT(fputs("line 3\n", file) >= 0, 1);
  EXPECT(fclose(file), 0);
  struct stat info;
  EXPECT(stat("/disk/box/note", &info), 0);
  EXPECT(info.st_size, 21);
  EXPECT_TRUE(S_ISREG(info.st_mode));
  DIR* directory = opendir("/disk/box");
  int entries = 0;
  for (struct dirent* entry; (entry = readdir(directory));) entries += strcmp(entry->d_name, "note") == 0;
  EXPECT(entries, 1);
  EXPECT(closedir(directory), 0);
  EXPECT(rename("/disk/box/note", "/disk/box/moved"), 0);
  EXPECT(access("/disk/box/note", F_OK), -1);
  EXPECT(errno, ENOENT);
  EXPECT(open("/elsewhere", O_RDONLY), -1);
  EXPECT(unlink("/disk/box/moved"), 0);
  EXPECT(rmdir("/disk/box"), 0);
  return finish();
}
