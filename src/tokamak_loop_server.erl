%% SPDX-License-Identifier: Apache-2.0
%% @doc The process of a supervised loop.
%%
%% With handlers it consumes the loop's queue: it sends each handler its events, while the others are
%% parked natively for pollers. With the select backend it also is the process that the VM tells.
%%
%% A handler's mailbox is kept bounded: after a window of events its further ones wait here (and count
%% against the loop's `max_queue') until a helper process has seen that its mailbox got short.
%% @private
-module(tokamak_loop_server).
-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, handle_continue/2]).

-include("tokamak_error.hrl").

%% How many events a handler is sent before its mailbox is looked at, and how long that may be.
-define(WINDOW, 1024).
%% How soon a handler that lags is looked at again, in milliseconds; each time twice as long, up to the limit.
-define(FIRST_LOOK, 5).
-define(LAST_LOOK, 1000).

-record(flow, {
    monitor :: reference(),
    ids = #{} :: #{pos_integer() => reference()},
    sent = 0 :: non_neg_integer(),
    %% `open', or what waits while the mailbox is looked at.
    held = open :: open | queue:queue({pos_integer(), tuple()})
}).

-record(state, {
    loop :: tokamak_nif:loop(),
    handlers = #{} :: #{pos_integer() => pid()},
    flows = #{} :: #{pid() => #flow{}}
}).

-spec start_link(map()) -> gen_server:start_ret() | {ok, pid(), tokamak_nif:loop()}.
start_link(#{name := Name} = Options) ->
    with_loop(gen_server:start_link({local, Name}, ?MODULE, Options, []));
start_link(Options) ->
    with_loop(gen_server:start_link(?MODULE, Options, [])).

with_loop({ok, Pid}) -> {ok, Pid, gen_server:call(Pid, loop)};
with_loop(Error) -> Error.

%% @private
-spec init(map()) -> {ok, #state{}} | {stop, term()}.
init(#{backend := Backend, max_queue := MaxQueue, max_timers := MaxTimers}) ->
    process_flag(message_queue_data, off_heap),
    case tokamak_nif:loop_open(supervised, Backend, MaxQueue, MaxTimers) of
        {ok, Loop} ->
            ok = select_here(Backend, Loop),
            {ok, #state{loop = Loop}};
        {error, Reason} ->
            {stop, Reason}
    end.

select_here(select, Loop) -> tokamak_nif:loop_select_here(Loop);
select_here(native, _Loop) -> ok.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}}
    | {reply, reference(), #state{}, {continue, dispatch}}
    | {stop, normal, term(), #state{}}.
handle_call(loop, _From, #state{loop = Loop} = State) ->
    {reply, Loop, State};
handle_call({register, Id, Pid}, _From, State) when ?IS_CALLBACK_ID(Id), is_pid(Pid), node(Pid) =:= node() ->
    Reference = make_ref(),
    case tokamak_nif:loop_register(State#state.loop, Id, Pid, Reference) of
        ok ->
            {Held, State1} = take_held(Id, State),
            State2 = add(Id, Pid, Reference, forget(Id, State1)),
            Messages = [{Pid, Id, setelement(2, Message, Reference)} || Message <- Held],
            {reply, Reference, deliver(Messages, State2), {continue, dispatch}};
        {error, closed} = Error ->
            {stop, normal, Error, State}
    end;
handle_call({unregister, Id}, _From, #state{handlers = Handlers, flows = Flows} = State) ->
    case Handlers of
        #{Id := Pid} ->
            #{Pid := #flow{ids = #{Id := Reference}}} = Flows,
            _ = tokamak_nif:loop_unregister(State#state.loop, Id),
            {reply, {ok, Pid, Reference}, forget(Id, State)};
        _ ->
            {reply, ok, State}
    end;
handle_call(destroy, _From, #state{loop = Loop} = State) ->
    {stop, normal, tokamak_nif:loop_close(Loop), State};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {noreply, #state{}, {continue, dispatch}}.
handle_info({tokamak, _Loop, ready}, State) ->
    {noreply, State, {continue, dispatch}};
handle_info({select, Fd, undefined, ready_input}, State) ->
    _ = tokamak_nif:loop_selected(Fd, read),
    {noreply, State};
handle_info({select, Fd, undefined, ready_output}, State) ->
    _ = tokamak_nif:loop_selected(Fd, write),
    {noreply, State};
handle_info({caught_up, Pid}, State) ->
    {noreply, release(Pid, State)};
handle_info({'DOWN', Monitor, process, Pid, _Reason}, #state{flows = Flows} = State) ->
    case Flows of
        #{Pid := #flow{monitor = Monitor, ids = Ids}} ->
            _ = [tokamak_nif:loop_unregister(State#state.loop, Id) || Id <- maps:keys(Ids)],
            {noreply, lists:foldl(fun forget/2, State, maps:keys(Ids))};
        _ ->
            {noreply, State}
    end;
handle_info(_Message, State) ->
    {noreply, State}.

%% @private
-spec handle_continue(dispatch, #state{}) ->
    {noreply, #state{}} | {noreply, #state{}, {continue, dispatch}} | {stop, normal, #state{}}.
handle_continue(dispatch, #state{loop = Loop} = State) ->
    case tokamak_nif:loop_dispatch(Loop) of
        {more, Messages} -> {noreply, deliver(Messages, State), {continue, dispatch}};
        {empty, Messages} -> {noreply, deliver(Messages, State)};
        {error, closed} -> {stop, normal, State}
    end.

add(Id, Pid, Reference, #state{handlers = Handlers, flows = Flows} = State) ->
    Flow =
        case Flows of
            #{Pid := Known} -> Known;
            _ -> #flow{monitor = monitor(process, Pid)}
        end,
    Ids = (Flow#flow.ids)#{Id => Reference},
    State#state{
        handlers = Handlers#{Id => Pid},
        flows = Flows#{Pid => Flow#flow{ids = Ids}}
    }.

%% What was held back for the handler of an id is for the one that takes over.
take_held(Id, #state{handlers = Handlers, flows = Flows} = State) ->
    case Handlers of
        #{Id := Pid} ->
            #{Pid := #flow{held = Held} = Flow} = Flows,
            {Taken, Kept} = split(Id, Held),
            {Taken, State#state{flows = Flows#{Pid := Flow#flow{held = Kept}}}};
        _ ->
            {[], State}
    end.

%% Forgets the handler of an id, and what is held back of its events.
forget(Id, #state{handlers = Handlers, flows = Flows} = State) ->
    case Handlers of
        #{Id := Pid} ->
            #{Pid := Flow} = Flows,
            {Dropped, Held} = split(Id, Flow#flow.held),
            dispatched(length(Dropped), State),
            Ids = maps:remove(Id, Flow#flow.ids),
            State#state{
                handlers = maps:remove(Id, Handlers),
                flows = keep(Pid, Flow#flow{ids = Ids, held = Held}, Flows)
            };
        _ ->
            State
    end.

keep(Pid, #flow{ids = Ids, monitor = Monitor}, Flows) when map_size(Ids) =:= 0 ->
    demonitor(Monitor, [flush]),
    maps:remove(Pid, Flows);
keep(Pid, Flow, Flows) ->
    Flows#{Pid => Flow}.

split(_Id, open) ->
    {[], open};
split(Id, Held) ->
    IsOfId = fun({HeldId, _Message}) -> HeldId =:= Id end,
    {OfId, Others} = lists:partition(IsOfId, queue:to_list(Held)),
    {[Message || {_Id, Message} <- OfId], queue:from_list(Others)}.

deliver(Messages, State) ->
    {Sent, Flows} = lists:foldl(fun deliver_one/2, {0, State#state.flows}, Messages),
    dispatched(Sent, State),
    State#state{flows = Flows}.

deliver_one({Pid, Id, Message}, {Sent, Flows}) ->
    case Flows of
        #{Pid := #flow{held = open, sent = N} = Flow} when N < ?WINDOW ->
            Pid ! Message,
            {Sent + 1, Flows#{Pid := Flow#flow{sent = N + 1}}};
        #{Pid := #flow{held = open} = Flow} ->
            look_at(Pid),
            {Sent, Flows#{Pid := Flow#flow{held = queue:from_list([{Id, Message}])}}};
        #{Pid := #flow{held = Held} = Flow} ->
            {Sent, Flows#{Pid := Flow#flow{held = queue:in({Id, Message}, Held)}}};
        _ ->
            {Sent + 1, Flows}
    end.

%% The handler's mailbox got short: what was held goes to it, up to a window.
release(Pid, #state{flows = Flows} = State) ->
    case Flows of
        #{Pid := #flow{held = Held} = Flow} when Held =/= open ->
            Messages = [{Pid, Id, Message} || {Id, Message} <- queue:to_list(Held)],
            Opened = Flows#{Pid := Flow#flow{held = open, sent = 0}},
            deliver(Messages, State#state{flows = Opened});
        _ ->
            State
    end.

%% Asking a process for its mailbox waits for that process, so another one asks.
look_at(Pid) ->
    Server = self(),
    _ = spawn_link(fun() -> look(Server, Pid, ?FIRST_LOOK) end),
    ok.

look(Server, Pid, Interval) ->
    case process_info(Pid, message_queue_len) of
        {message_queue_len, Length} when Length > ?WINDOW ->
            look_later(Server, Pid, Interval);
        _ ->
            Server ! {caught_up, Pid},
            ok
    end.

%% The loop may have ended meanwhile: a normal end passes no link.
look_later(Server, Pid, Interval) ->
    timer:sleep(Interval),
    case is_process_alive(Server) of
        true -> look(Server, Pid, min(2 * Interval, ?LAST_LOOK));
        false -> ok
    end.

dispatched(0, _State) ->
    ok;
dispatched(Count, #state{loop = Loop}) ->
    _ = tokamak_nif:loop_dispatched(Loop, Count),
    ok.
