%% SPDX-License-Identifier: Apache-2.0
%% @doc File descriptors: open, read and write them without ever blocking a scheduler.
%%
%% A descriptor belongs to the process that opened it, until {@link controlling_process/2}; any local
%% process may read and write it. It is closed by {@link close/1}, with its owner, or when its last
%% reference is gone; but one that a loop with the `select' backend ever watched not by that, so close it
%% when it is not needed any more. Watching it is {@link tokamak_loop}'s part: what a read, a write or a reselect
%% means for the next event is said in docs/messages.md.
%%
%% Pipes, FIFOs, sockets and terminals are read and written on the calling scheduler and never block;
%% regular files, which cannot be watched, on a dirty I/O scheduler, since a disk may take its time.
-module(tokamak_fd).

-export([
    open/2,
    pipe/0,
    from_integer/1,
    read/2,
    write/2,
    close/1,
    controlling_process/2,
    handle_fd_event_and_reselect/2,
    read_and_reselect/2
]).
-export([native_path/1, native_flags/1]).

-include("tokamak_error.hrl").

-export_type([fd/0, mode/0]).
-opaque fd() :: tokamak_nif:fd().
-type mode() :: read | write | append | exclusive.

-define(MODES, [read, write, append, exclusive]).

%% @doc Opens a file, FIFO or device.
%%
%% The modes are those of {@link file:open/2}: `write' creates the file, and truncates it unless it is
%% combined with `read' or `append'; `append' creates it and writes at its end; `exclusive' makes a file
%% that exists an error. Opening does not wait for the other end of a FIFO: one that nobody reads
%% cannot be opened for writing alone (`enxio'). Errors are POSIX names.
%%
%% ```
%% Path = filename:join("/tmp", "tokamak_example_" ++ os:getpid()).
%% {ok, File} = tokamak_fd:open(Path, [write]).
%% {ok, 5} = tokamak_fd:write(File, "hello").
%% ok = tokamak_fd:close(File).
%% {error, eexist} = tokamak_fd:open(Path, [write, exclusive]).
%% ok = file:delete(Path).
%% {error, enoent} = tokamak_fd:open(Path, [read]).
%% '''
-spec open(file:name_all(), [mode()]) -> {ok, fd()} | {error, file:posix()}.
open(Path, Modes) ->
    case {native_path(Path), native_flags(Modes)} of
        {{ok, NativePath}, {ok, Flags}} -> tokamak_nif:fd_open(NativePath, Flags);
        _ -> ?BADARG([Path, Modes], [path, modes])
    end.

%% @doc Opens a pipe. Fails only where no descriptor is left (`emfile', `enfile').
%%
%% ```
%% {ok, Read, Write} = tokamak_fd:pipe().
%% again = tokamak_fd:read(Read, 1024).
%% {ok, 5} = tokamak_fd:write(Write, "hello").
%% {ok, <<"hello">>} = tokamak_fd:read(Read, 1024).
%% '''
-spec pipe() -> {ok, ReadFd :: fd(), WriteFd :: fd()} | {error, file:posix()}.
pipe() ->
    tokamak_nif:fd_pipe().

%% @doc Makes a descriptor of a number, which stays with its owner: this is a duplicate, and the flags of
%% the original do not change. `ebadf': there is none of this number.
%%
%% ```
%% {ok, StandardInput} = tokamak_fd:from_integer(0).
%% ok = tokamak_fd:close(StandardInput).
%% {error, ebadf} = tokamak_fd:from_integer(1000000000).
%% '''
-spec from_integer(non_neg_integer()) -> {ok, fd()} | {error, file:posix()}.
from_integer(N) when is_integer(N), N >= 0, N =< 16#7FFFFFFF ->
    tokamak_nif:fd_from_integer(N);
from_integer(N) ->
    ?BADARG([N], [integer]).

%% @doc Reads at most `Max' bytes, and at most 256 KiB at once. Never waits for bytes.
%%
%% `again': nothing is there now. `eof': nothing will come.
%%
%% ```
%% {ok, Read, Write} = tokamak_fd:pipe().
%% again = tokamak_fd:read(Read, 1024).
%% {ok, 6} = tokamak_fd:write(Write, "abcdef").
%% {ok, <<"abcd">>} = tokamak_fd:read(Read, 4).
%% ok = tokamak_fd:close(Write).
%% {ok, <<"ef">>} = tokamak_fd:read(Read, 4).
%% eof = tokamak_fd:read(Read, 4).
%% '''
-spec read(fd(), Max :: pos_integer()) -> {ok, binary()} | again | eof | {error, closed | file:posix()}.
read(Fd, Max) when is_integer(Max), Max >= 1, Max =< 16#7FFFFFFF ->
    case tokamak_nif:fd_read(Fd, Max) of
        regular -> tokamak_nif:fd_read_file(Fd, Max);
        badarg -> ?BADARG([Fd, Max], [fd, size]);
        Result -> Result
    end;
read(Fd, Max) ->
    ?BADARG([Fd, Max], [fd, size]).

%% @doc Writes what fits now, at most 256 KiB at once, and says how many bytes that was: what is left is for the next
%% write, after a `write' event. Never waits for room.
%%
%% `again': nothing fits now. `epipe': nobody will read it.
%%
%% ```
%% {ok, Read, Write} = tokamak_fd:pipe().
%% {ok, 11} = tokamak_fd:write(Write, ["hello", <<" world">>]).
%% {ok, Written} = tokamak_fd:write(Write, binary:copy(<<"x">>, 200000)).
%% true = Written < 200000.
%% again = tokamak_fd:write(Write, "y").
%% ok = tokamak_fd:close(Read).
%% {error, epipe} = tokamak_fd:write(Write, "y").
%% '''
-spec write(fd(), iodata()) -> {ok, Written :: non_neg_integer()} | again | {error, closed | file:posix()}.
write(Fd, Data) ->
    case native_data(Data) of
        {ok, Binaries} ->
            case tokamak_nif:fd_write(Fd, Binaries) of
                regular -> tokamak_nif:fd_write_file(Fd, Binaries);
                badarg -> ?BADARG([Fd, Data], [fd, iodata]);
                Result -> Result
            end;
        error ->
            ?BADARG([Fd, Data], [fd, iodata])
    end.

%% @doc Closes a descriptor. Loops that watch it forget it: no event of it comes any more. Raises
%% `not_owner' in any process but its owner.
%%
%% ```
%% {ok, Read, _Write} = tokamak_fd:pipe().
%% ok = tokamak_fd:close(Read).
%% {error, closed} = tokamak_fd:close(Read).
%% {error, closed} = tokamak_fd:read(Read, 1).
%% '''
-spec close(fd()) -> ok | {error, closed}.
close(Fd) ->
    Result =
        case tokamak_nif:fd_close(Fd) of
            regular -> tokamak_nif:fd_close_file(Fd);
            Other -> Other
        end,
    case Result of
        not_owner -> ?NOT_OWNER([Fd]);
        badarg -> ?BADARG([Fd], [fd]);
        _ -> Result
    end.

%% @doc Makes another local process the owner, with whose end the descriptor closes. Raises `not_owner' in any process
%% but the owner. `no_process': it has ended; the descriptor stays the caller's.
%%
%% ```
%% {ok, Read, _Write} = tokamak_fd:pipe().
%% Owner = spawn(fun() -> receive stop -> ok end end).
%% ok = tokamak_fd:controlling_process(Read, Owner).
%% not_owner = try tokamak_fd:close(Read) catch error:Reason -> Reason end.
%% Owner ! stop.
%% '''
-spec controlling_process(fd(), pid()) -> ok | {error, closed | no_process}.
controlling_process(Fd, Pid) when is_pid(Pid), node(Pid) =:= node() ->
    case tokamak_nif:fd_controlling_process(Fd, Pid) of
        not_owner -> ?NOT_OWNER([Fd, Pid]);
        badarg -> ?BADARG([Fd, Pid], [fd, pid]);
        Result -> Result
    end;
controlling_process(Fd, Pid) ->
    ?BADARG([Fd, Pid], [fd, pid]).

%% @doc Takes the event of a watched descriptor and arms it again, in one native call; returns the
%% callback id that it is watched for. What is still ready is reported again.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new().
%% {ok, Read, Write} = tokamak_fd:pipe().
%% Ref = tokamak_loop:register(Loop, 7, self()).
%% ok = tokamak_loop:add_reader(Loop, Read, 7).
%% {ok, 2} = tokamak_fd:write(Write, "hi").
%% receive {tokamak, Ref, {event, 7, read, undefined}} -> ok end.
%% {ok, 7} = tokamak_fd:handle_fd_event_and_reselect(Read, read).
%% %% Nothing was read, so it is told again.
%% receive {tokamak, Ref, {event, 7, read, undefined}} -> ok end.
%% '''
-spec handle_fd_event_and_reselect(fd(), read | write) ->
    {ok, CallbackId :: pos_integer()} | {error, closed | not_watched}.
handle_fd_event_and_reselect(Fd, Direction) when Direction =:= read; Direction =:= write ->
    case tokamak_nif:fd_reselect(Fd, Direction) of
        badarg -> ?BADARG([Fd, Direction], [fd, direction]);
        Result -> Result
    end;
handle_fd_event_and_reselect(Fd, Direction) ->
    ?BADARG([Fd, Direction], [fd, direction]).

%% @doc {@link handle_fd_event_and_reselect/2} with a read of at most `Max' bytes (and 256 KiB) in
%% between: the cheapest way to serve a descriptor. `again' and `eof' arm it, too.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new().
%% {ok, Read, Write} = tokamak_fd:pipe().
%% Ref = tokamak_loop:register(Loop, 7, self()).
%% ok = tokamak_loop:add_reader(Loop, Read, 7).
%% {ok, 2} = tokamak_fd:write(Write, "hi").
%% receive {tokamak, Ref, {event, 7, read, undefined}} -> ok end.
%% {ok, 7, <<"hi">>} = tokamak_fd:read_and_reselect(Read, 1024).
%% '''
-spec read_and_reselect(fd(), Max :: pos_integer()) ->
    {ok, CallbackId :: pos_integer(), binary()}
    | again
    | eof
    | {error, closed | not_watched | file:posix()}.
read_and_reselect(Fd, Max) when is_integer(Max), Max >= 1, Max =< 16#7FFFFFFF ->
    case tokamak_nif:fd_read_and_reselect(Fd, Max) of
        badarg -> ?BADARG([Fd, Max], [fd, size]);
        Result -> Result
    end;
read_and_reselect(Fd, Max) ->
    ?BADARG([Fd, Max], [fd, size]).

%% @private
-spec native_path(term()) -> {ok, binary()} | error.
native_path(Path) ->
    try tokamak_os_text:encode(filename:join([Path])) of
        {ok, <<>>} -> error;
        Result -> Result
    catch
        error:_ -> error
    end.

%% @private The flags of open(2) that file:open/2 would use.
-spec native_flags(term()) -> {ok, [atom()]} | error.
native_flags(Modes) when is_list(Modes) ->
    case are_modes(Modes) of
        true ->
            [Read, Write, Append, Exclusive] = [lists:member(Mode, Modes) || Mode <- ?MODES],
            Writes = Write orelse Append,
            Flags = [
                {read, Read},
                {write, Writes},
                {append, Append},
                {create, Writes},
                {truncate, Write andalso not Read andalso not Append},
                {exclusive, Exclusive andalso Writes}
            ],
            case Read orelse Writes of
                true -> {ok, [Flag || {Flag, true} <- Flags]};
                false -> error
            end;
        false ->
            error
    end;
native_flags(_Modes) ->
    error.

are_modes([Mode | Modes]) -> lists:member(Mode, ?MODES) andalso are_modes(Modes);
are_modes(End) -> End =:= [].

native_data(Data) when is_binary(Data) ->
    {ok, Data};
native_data(Data) ->
    try
        {ok, erlang:iolist_to_iovec(Data)}
    catch
        error:badarg -> error
    end.
