%% SPDX-License-Identifier: Apache-2.0
%% What feeds the demonstration: OS processes behind a pipe and two FIFOs, and Erlang processes that post.
-module(tokamak_loop_demo_sources).

-export([make_directory/0, remove_directory/1, open/1, start_posters/4]).

%% As in feed.sh.
-define(BATCHES, 20).
-define(NUMBERS, 10000).
-define(LOG_LINES, 60).
-define(LOG_INTERVAL, 25).
%% A poster pauses after so many posts, for so many milliseconds.
-define(POST_BATCH, 10).
-define(POST_INTERVAL, 100).

make_directory() ->
    Dir = string:trim(os:cmd("mktemp -d")),
    true = filelib:is_dir(Dir),
    Dir.

remove_directory(Dir) ->
    ok = file:del_dir_r(Dir).

%% Descriptors, each with the number of bytes that will come and their checksum.
open(Dir) ->
    [open_pipe(), open_fifo(Dir), open_tail(Dir)].

%% Standard input: scripts/demo.sh starts the VM at the end of a pipe that feed.sh writes into.
open_pipe() ->
    {ok, Fd} = tokamak_fd:from_integer(0),
    {pipe, Fd, fed()}.

open_fifo(Dir) ->
    Fd = make_fifo(Dir, "fifo"),
    shell("exec sh examples/loop/feed.sh >\"$0\"", [filename:join(Dir, "fifo")]),
    {fifo, Fd, fed()}.

%% `tail -f' waits (with inotify, where there is any) for a log file to grow.
open_tail(Dir) ->
    Log = filename:join(Dir, "log"),
    ok = file:write_file(Log, <<>>),
    Fd = make_fifo(Dir, "tail"),
    %% The shell reads until this VM closes the port or dies, so that no tail is left behind.
    Script = "tail -n +1 -f \"$0\" >\"$1\" & read -r _; kill $! 2>/dev/null",
    shell(Script, [Log, filename:join(Dir, "tail")]),
    Lines = [log_line(N) || N <- lists:seq(1, ?LOG_LINES)],
    _ = spawn_link(fun() -> write_log(Log, Lines) end),
    {tail, Fd, sum(Lines)}.

make_fifo(Dir, Name) ->
    Path = filename:join(Dir, Name),
    "" = os:cmd("mkfifo " ++ Path),
    {ok, Fd} = tokamak_fd:open(Path, [read]),
    Fd.

shell(Script, Args) ->
    open_port({spawn_executable, "/bin/sh"}, [{args, ["-c", Script | Args]}]).

fed() ->
    Batch = [[integer_to_list(N), $\n] || N <- lists:seq(1, ?NUMBERS)],
    sum(lists:duplicate(?BATCHES, iolist_to_binary(Batch))).

sum(Data) ->
    {iolist_size(Data), erlang:crc32(Data)}.

log_line(N) ->
    io_lib:format("line ~b of ~b~n", [N, ?LOG_LINES]).

write_log(_Log, []) ->
    ok;
write_log(Log, [Line | Lines]) ->
    ok = file:write_file(Log, Line, [append]),
    pause(?LOG_INTERVAL),
    write_log(Log, Lines).

start_posters(Loop, Id, Count, Each) ->
    lists:foreach(
        fun(Poster) -> spawn_link(fun() -> post(Loop, Id, Poster, 1, Each) end) end,
        lists:seq(1, Count)
    ).

post(_Loop, _Id, _Poster, N, Each) when N > Each ->
    ok;
post(Loop, Id, Poster, N, Each) ->
    case tokamak_loop:post(Loop, Id, user, {Poster, N}) of
        ok ->
            _ = N rem ?POST_BATCH =:= 0 andalso pause(?POST_INTERVAL),
            post(Loop, Id, Poster, N + 1, Each);
        {error, overloaded} ->
            pause(1),
            post(Loop, Id, Poster, N, Each)
    end.

pause(Milliseconds) ->
    receive
    after Milliseconds -> ok
    end.
